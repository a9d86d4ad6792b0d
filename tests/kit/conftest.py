"""The fixtures that any distribution gets from Hookline's pytest plugin."""

from hookline.testing.pytest_plugin import hookline_conforms, hookline_harness  # noqa: F401
