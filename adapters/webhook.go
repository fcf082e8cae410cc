package adapters

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// A Webhook says where a queue's messages are pushed to.
type Webhook struct {
	// URL is where each message is posted to: http or https.
	URL string
	// Secrets sign the messages (Standard Webhooks): whsec_ and base64. The
	// first is the one in force; the others are those that it replaces, for as
	// long as receivers may still have them.
	Secrets []string
	// Timeout of one attempt; 0 is 15 seconds.
	Timeout time.Duration
	// InFlight is how many messages are posted at once; 0 is 8. With 1 they
	// come in the queue's order.
	InFlight int
}

// WebhookSecretPrefix is what a secret begins with.
const WebhookSecretPrefix = "whsec_"

// Bounds of a webhook.
const (
	webhookTimeout     = 15 * time.Second
	webhookTimeoutMost = time.Minute
	webhookInFlight    = 8
	webhookInFlightMax = 64
	webhookSecrets     = 4
)

// Check says what is wrong with a webhook, and fills in what was left out.
func (w *Webhook) Check() error {
	u, err := url.Parse(w.URL)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return errors.New("url is an address such as https://example.com/hook")
	case u.User != nil || u.Fragment != "":
		return errors.New("url has neither a user nor a fragment: messages are signed instead")
	case len(w.Secrets) == 0 || len(w.Secrets) > webhookSecrets:
		return fmt.Errorf("there are 1 to %d secrets", webhookSecrets)
	case w.Timeout < 0 || w.Timeout > webhookTimeoutMost:
		return fmt.Errorf("timeout is at most %v", webhookTimeoutMost)
	case w.InFlight < 0 || w.InFlight > webhookInFlightMax:
		return fmt.Errorf("in_flight is at most %d", webhookInFlightMax)
	}
	for _, s := range w.Secrets {
		if _, err := WebhookKey(s); err != nil {
			return err
		}
	}
	if w.Timeout == 0 {
		w.Timeout = webhookTimeout
	}
	if w.InFlight == 0 {
		w.InFlight = webhookInFlight
	}
	return nil
}

// WebhookKey is the key that a secret of a webhook stands for: 24 to 64 bytes.
func WebhookKey(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, WebhookSecretPrefix))
	if err != nil || len(key) < 24 || len(key) > 64 || !strings.HasPrefix(secret, WebhookSecretPrefix) {
		return nil, errors.New("a secret is " + WebhookSecretPrefix + " and 24 to 64 bytes in base64")
	}
	return key, nil
}
