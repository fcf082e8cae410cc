package core

import (
	"context"
	"strings"
)

// Topics returns what the log holds of topics, in the order of their names: of
// the first limit behind after ("" for the first) that a filter matches and the
// client may read. Inboxes, whose names are their readers' secrets, are told to who
// names them. It may block for the disk.
func (c *Client) Topics(ctx context.Context, f Filter, after string, limit int) ([]TopicSum, error) {
	return c.broker.engine.Topics(ctx, f, after, max(limit, 1), func(topic string) bool {
		return (topic == string(f) || !strings.HasPrefix(topic, InboxPrefix)) && c.authorize(Deliver, topic) == nil
	})
}
