package fault

import (
	"errors"
	"net"
)

// Unreached adds a hint to the error of a connection that was never made: a name that
// nobody knows, an address that does not answer or refuses, a proxy that is not there.
// Any other error stays as it is.
func Unreached(err error) error {
	_, name := errors.AsType[*net.DNSError](err)
	op, dial := errors.AsType[*net.OpError](err)
	if name || dial && (op.Op == "dial" || op.Op == "proxyconnect") {
		return Hint(err, "is the network up, and the address right (the endpoint of the store, the URL of the API)? A proxy is taken from HTTPS_PROXY")
	}
	return err
}
