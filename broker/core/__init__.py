"""The core: exchanges, bindings, queues and consumers; synchronous, deterministic, without I/O."""
