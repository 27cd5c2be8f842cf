"""One source, two engines: what drives an algorithm's handlers.

`sim` is the deterministic simulator, `live` the runtime of real processes. What they share is here: the
`handler_step`, what is sent (`outbox`), what is recorded (`trace`). Neither knows an algorithm, a task but
its protocol, or the other. What is directly here imports only `core`.
"""
