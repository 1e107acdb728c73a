"""The one training loop, with what it reads, measures, keeps and reports."""
