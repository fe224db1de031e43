"""Results as Markdown, ready for benches/README.md."""


def number(value, digits=3):
    """A figure with so many digits that mean something."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def table(rows, columns):
    """A table of rows; a server without figures says why."""
    if not any(row.get("instructions") for row in rows):
        columns = [column for column in columns if "instructions" not in column[1]]
    lines = ["| | " + " | ".join(title for title, _ in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for row in rows:
        cells = [cell(row, key) for _, key in columns]
        if "why" in row:
            empty = [at for at, text in enumerate(cells) if not text]
            if empty:
                cells[empty[0]] = row["why"].replace("|", "/").replace("\n", " ")[-160:]
        lines.append(f"| {row['server']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row, key):
    value = row.get(key)
    if value is None:
        return ""
    if key.endswith("of_nginx"):
        return f"{value:.2f}"
    if key in ("busy", "spread"):
        return f"{100 * value:.0f} %"
    return number(value)


SUMMARY = [
    ("proxied", "CPU, µs", "cpu_us", "of_nginx"),
    ("proxied", "instructions", "instructions", "instructions_of_nginx"),
    ("paced", "p50, µs", "p50_us", "p50_of_nginx"),
    ("paced", "p99, µs", "p99_us", "p99_of_nginx"),
]


def summarize(parts):
    """What matters of proxied requests, with a column for each server."""
    lines = []
    for scenario, said, key, ratio in SUMMARY:
        for part in parts:
            of = {row["server"]: row for row in part["rows"] if row.get(key)}
            if part["scenario"] == scenario and of:
                lines.append((f"{part['title']}: {said}", of, key, ratio))
    if not lines:
        return []
    names = list(dict.fromkeys(name for _, of, _, _ in lines for name in of))
    text = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for title, of, key, ratio in lines:
        cells = [format_figure(of.get(name, {}), key, ratio) for name in names]
        text.append(f"| {title} | " + " | ".join(cells) + " |")
    return ["**Proxied requests, and how many times nginx's figure**", "", *text, ""]


def format_figure(row, key, ratio):
    """A figure with its ratio."""
    if key not in row:
        return ""
    text = cell(row, key)
    return f"{text} ({cell(row, ratio)})" if ratio in row else text


HANDSHAKES = [
    ("CPU, µs each", "cpu_us"),
    ("of nginx", "of_nginx"),
    ("CPU, s per 1,000", "cpu_s_per_1000"),
    ("a second", "rate"),
    ("p99, ms", "p99_ms"),
    ("rounds differ by", "spread"),
]

REQUESTS = [
    ("CPU, µs each", "cpu_us"),
    ("of nginx", "of_nginx"),
    ("CPU, s per 10,000", "cpu_s_per_10000"),
    ("a second", "rate"),
    ("MB/s", "mb_s"),
    ("rounds differ by", "spread"),
]

PROXIED = [
    ("CPU, µs each", "cpu_us"),
    ("of nginx", "of_nginx"),
    ("a second", "rate"),
    ("of nginx", "rate_of_nginx"),
    ("server's core busy", "busy"),
    ("MB/s", "mb_s"),
    ("instructions each", "instructions"),
    ("of nginx", "instructions_of_nginx"),
    ("rounds differ by", "spread"),
]

PACED = [
    ("p50, µs", "p50_us"),
    ("of nginx", "p50_of_nginx"),
    ("p99, µs", "p99_us"),
    ("of nginx", "p99_of_nginx"),
    ("CPU, µs each", "cpu_us"),
    ("rounds differ by", "spread"),
]

FLOOD = [
    ("p99 of a request beside the flood, ms", "beside_p99_ms"),
    ("median", "beside_p50_ms"),
    ("p99 alone, ms", "alone_p99_ms"),
    ("handshakes a second", "rate"),
    ("their p99, ms", "handshake_p99_ms"),
    ("CPU, µs each", "cpu_us"),
    ("rounds differ by", "spread"),
]

IDLE = [
    ("KiB each", "kib"),
    ("of nginx", "of_nginx"),
    ("MiB before", "empty_mib"),
    ("MiB after they are closed", "after_mib"),
]

SITES = [
    ("start to first handshake, s", "start_s"),
    ("all loaded, s", "ready_s"),
    ("both, started before, s", "warm_start_s"),
    ("", "warm_ready_s"),
    ("memory, MiB", "memory_mib"),
    ("after handshakes, MiB", "after_mib"),
    ("CPU of a handshake, µs", "random"),
    ("certificate replaced to served, s", "change_s"),
    ("failed meanwhile", "failed"),
]

MANY = [
    ("start to first handshake, s", "start_s"),
    ("all loaded, s", "ready_s"),
    ("both, started before, s", "warm_start_s"),
    ("", "warm_ready_s"),
    ("memory, MiB", "memory_mib"),
    ("octets a site", "octets_a_site"),
    ("CPU of a handshake at one site, µs", "one_site_cpu_us"),
    ("of any, cold", "cold_cpu_us"),
    ("of 100, warm", "warm_cpu_us"),
    ("replaced to served, s", "change_s"),
    ("failed meanwhile", "failed"),
]

ON_DEMAND = [
    ("made a second", "rate"),
    ("CPU, µs each", "cpu_us"),
    ("p99 of the new, ms", "new_p99_ms"),
    ("p99 of the known alone, ms", "alone_p99_ms"),
    ("p99 of the known beside the new, ms", "beside_p99_ms"),
]

COLUMNS = {
    "handshake": HANDSHAKES,
    "resumed": HANDSHAKES,
    "flood": FLOOD,
    "requests": REQUESTS,
    "proxied": PROXIED,
    "paced": PACED,
    "idle": IDLE,
    "sites": SITES,
    "on_demand": ON_DEMAND,
    "many": MANY,
}


COUNTERS = {
    "perf": "Instructions are those in user mode, as the processor counts them.",
    "callgrind": "Instructions are those in user mode on the processor that callgrind simulates.",
    None: "Instructions are not counted: the processor's counters cannot be read here.",
}


def markdown(results):
    machine = results["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Linux {machine['kernel']}; {machine['date']}.",
        "; ".join(results["versions"]) + ".",
        "",
        *summarize(results["parts"]),
    ]
    if any(part["scenario"] == "proxied" for part in results["parts"]):
        lines += [COUNTERS[results["counter"]], ""]
    for part in results["parts"]:
        lines += [f"**{part['title']}**", ""]
        if part["rows"]:
            lines += [table(part["rows"], COLUMNS[part["scenario"]]), ""]
        else:
            lines += ["No time was left.", ""]
    made = results["certificates"]
    if made:
        took = ", ".join(f"{int(count):,} in {number(took)} s" for count, took in made.items())
        lines.append(f"Certificates, each with a key of its own, were made so fast: {took}.")
    return "\n".join(lines)
