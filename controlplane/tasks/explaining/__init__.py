"""Why a task or an agent is in its state, since when, and what happens next.

``rules`` decides what is said, from facts; ``service`` gathers the facts. Nothing is changed here.
"""
