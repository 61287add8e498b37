"""Study of how much data architectures need. Each one is trained at several training-set sizes and seeds."""
