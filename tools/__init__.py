"""Scripts for people who work on dtwpt."""
