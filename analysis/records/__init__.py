"""Run folders, committed results, and the ledger of test-set use."""
