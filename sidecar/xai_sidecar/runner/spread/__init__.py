"""A run on many machines: pictures go to workers, each with an engine on its device, and what comes of them comes back.

    run ─ Spreader ─ Cluster ─┬─ Worker: Engine, Runner
                              ├─ Worker
                              └─ …

`Spreader` decides what goes where, and knows nothing of Ray; `RayCluster` is the one cluster there is.
"""
