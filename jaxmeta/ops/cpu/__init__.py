"""Kernels for CPUs, which `jaxmeta.ops` uses when a program is lowered for a CPU."""
