"""The workshops: one class per bench, each method one retryable step of a workflow."""
