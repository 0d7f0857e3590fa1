"""Other people's data, read from pinned wheels: logs of their traffic and classification data sets, as typed rows.

Called by the drives, the readers of logs and the worlds; no data is part of this project's files.
"""
