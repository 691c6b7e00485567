"""Who is connected now: the three streams of AgentService.

What lives here carries messages between agents and rooms and knows which session
of an agent is the live one of this process. It decides nothing about tasks,
telemetry or certificates, and keeps nothing that a restart may not forget.
"""
