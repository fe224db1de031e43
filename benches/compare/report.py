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
    if key == "of_nginx":
        return f"{value:.2f}"
    if key == "spread":
        return f"{100 * value:.0f} %"
    return number(value)


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
    "proxied": REQUESTS,
    "idle": IDLE,
    "sites": SITES,
    "on_demand": ON_DEMAND,
    "many": MANY,
}


def markdown(results):
    machine = results["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Linux {machine['kernel']}; {machine['date']}.",
        "; ".join(results["versions"]) + ".",
        "",
    ]
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
