// DNS of the test cluster: CoreDNS with the three plugins that the cluster uses. `cluster build` copies this folder,
// because a build adds to this file.
module vitpipe/tests/cluster/dns

go 1.24.0

require github.com/coredns/coredns v1.14.7
