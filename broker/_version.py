"""The version, declared here only: the package metadata is read from this file."""

__version__ = "0.1.0"
