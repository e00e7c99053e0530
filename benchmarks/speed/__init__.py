"""
How fast, in how much memory, and beside whom: `./scripts/bench`, or `python -m benchmarks.speed`.

    parts        the seven parts: which cases, which tables, what they must show
    clients      embedbatch, its peers, and the limit
    case         one measurement: what is asked and what came out, as JSON
    worker       one measurement, in a process of its own
    measure      the timed section: wall time, CPU time, the most memory
    vectors      the texts, and the vector that belongs to each; delays: the schedule of the latency part
    documents    the long documents
    server       the load server
    lab          starts the server and the processes, round by round
    tables       medians, ratios, verdicts, as text and as Markdown; chart: the picture; page: docs/benchmarks.md

`docs/benchmarks.md` says what is measured and how.
"""
