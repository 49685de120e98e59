//go:build integration

package jobs

import "testing"

// TestIntegrationFaults spoils every request of a small job, of D1's and of the
// store's, in every way: each run ends with the right result or the right error,
// and the next one with an archive equal to the source.
func TestIntegrationFaults(t *testing.T) {
	var tried int
	t.Run("faults", func(t *testing.T) { tried = faultsOverTheNetwork(t, 1) })
	reliability(t, "faults over the network", int64(tried), "faults, each at every request of D1 and S3 that it can hit")
}
