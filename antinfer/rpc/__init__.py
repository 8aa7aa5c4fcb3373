"""The wire between workers, the master and people: generated stubs, one seam of conversion, channels and status codes.

Only `antinfer.rpc.convert` and the code that serves or calls a stub touch generated classes; everyone else speaks `antinfer.core.messages`
and `antinfer.rpc.values`.
"""
