"""The phases of `benchmarks.gpu`: what each of them looks at on a device."""
