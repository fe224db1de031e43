"""Serves acme2certifier over HTTPS: acme2certifier.py PORT CERTIFICATE KEY."""

import runpy
import ssl
import sys
from pathlib import Path
from wsgiref.simple_server import make_server

# This file's own directory, where it would be found in the place of the package.
del sys.path[0]
import acme2certifier  # noqa: E402

program = Path(acme2certifier.__file__).parent / "share" / "acme2certifier_wsgi.py"
application = runpy.run_path(str(program))["application"]
server = make_server("127.0.0.1", int(sys.argv[1]), application)
# So that it names its own addresses by https.
server.base_environ["HTTPS"] = "on"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
