"""The doors: listeners, TLS, channel arguments, interceptors, the method table, errors.

What lives here knows gRPC and no capability. A call that reaches a handler has an
authenticated caller, a validated request and a deadline; what a handler raises
leaves as one ``google.rpc.Status``. No room's decision is taken here.
"""
