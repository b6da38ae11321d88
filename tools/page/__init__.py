"""The sections of docs/benchmarks.md, one file each: what stands in a result as Markdown."""
