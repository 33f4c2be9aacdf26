"""Storage behind `broker.core.store`."""
