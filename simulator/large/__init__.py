"""A log larger than memory: divided by unit, evaluated part by part on any engine, put together exactly."""
