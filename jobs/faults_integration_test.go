//go:build integration

package jobs

import "testing"

// TestIntegrationFaults spoils the requests of small jobs, D1's and the store's, in
// every way: each run ends with the right result or the right error, and the next
// one with an archive equal to the source. -thorough (`make faults`) spoils
// every single request of every job.
func TestIntegrationFaults(t *testing.T) {
	if *thorough {
		spoilErrands(t, 1, 1)
		return
	}
	spoilErrands(t, 5, 17)
}
