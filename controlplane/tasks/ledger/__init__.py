"""The delivery ledger: what happened to tasks on their way to agents and back.

State events are written in the transaction of the change that they tell of, observations in
groups of their own. Nothing decides by the ledger: it is what people and programs ask.
"""
