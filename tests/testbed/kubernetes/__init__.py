"""Kubernetes for the tests, from its own sources, without a container engine.

Two tiers: `testbed.kubernetes.api_tier`, the real API server and controllers without a node, with
`testbed.kubernetes.local_kubelet` to run pods as processes of this machine; and `testbed.kubernetes.node_tier`, one
real node with containers in namespaces of its own. `docs/testbed.md` says what each needs and costs.
"""
