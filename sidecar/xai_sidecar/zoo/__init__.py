"""Sample models, reached by factory name like a user's own: `xai_sidecar.zoo.efficientnet_lite:efficientnet_lite0`."""
