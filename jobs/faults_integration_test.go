//go:build integration

package jobs

import (
	"os"
	"testing"
)

// TestIntegrationFaults spoils the requests of small jobs, D1's and the store's, in
// every way: each run ends with the right result or the right error, and the next
// one with an archive equal to the source. ETL_FAULTS=all (`make faults`) spoils
// every single request of every job.
func TestIntegrationFaults(t *testing.T) {
	if os.Getenv("ETL_FAULTS") == "all" {
		spoilErrands(t, 1, 1)
		return
	}
	spoilErrands(t, 5, 17)
}
