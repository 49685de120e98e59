package cloudflare

import "time"

// SetWaits bounds silence for tests.
func (c *Client) SetWaits(answer, idle time.Duration) { c.answerWait, c.idleWait = answer, idle }
