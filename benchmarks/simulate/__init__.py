"""
The flow against simulated providers, in virtual time: `./scripts/simulate`, or `python -m benchmarks.simulate`.

    scenario     what a scenario is made of: a server, a job, a way to read off figures, the bars
    scenarios    all of them, by theme
    running      one run: a scenario, a client, a seed
    ours         embedbatch as a client
    clients      three simple clients, to compare with
    measures     figures, read off the requests that the server saw
    table        what is printed; trace: how one run went

The same seed gives the same run, request by request. `tests/behaviour/test_simulation.py` holds embedbatch to the bars.
"""
