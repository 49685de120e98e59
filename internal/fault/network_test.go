package fault_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"etl/internal/fault"
)

func TestUnreached(t *testing.T) {
	for what, tt := range map[string]struct {
		err  error
		hint bool
	}{
		"no such name": {&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example"}}, true},
		"only a name":  {&net.DNSError{Err: "no such host", Name: "api.example"}, true},
		"refused":      {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		"no proxy":     {&net.OpError{Op: "proxyconnect", Err: syscall.ECONNREFUSED}, true},
		"reset":        {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, false},
		"cut short":    {io.ErrUnexpectedEOF, false},
	} {
		err := fault.Unreached(fmt.Errorf("list: %w", fault.Wrap(fault.Transient, tt.err)))
		if got := strings.Contains(fault.HintOf(err), "HTTPS_PROXY"); got != tt.hint || !fault.Is(err, fault.Transient) || !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, hint %q", what, err, fault.HintOf(err))
		}
	}
}
