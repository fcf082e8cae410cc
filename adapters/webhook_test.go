package adapters

import (
	"strings"
	"testing"
)

func TestWebhookCheck(t *testing.T) {
	secret := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	good := Webhook{URL: "https://example.com/hook?a=b", Secrets: []string{secret}}
	if err := good.Check(); err != nil || good.Timeout != webhookTimeout || good.InFlight != webhookInFlight {
		t.Errorf("%+v, %v", good, err)
	}
	for _, bad := range []Webhook{
		{}, {URL: "ftp://example.com", Secrets: good.Secrets}, {URL: "https://", Secrets: good.Secrets}, {URL: "/hook", Secrets: good.Secrets}, {URL: "https:example.com", Secrets: good.Secrets},
		{URL: "https://user@example.com", Secrets: good.Secrets}, {URL: "https://example.com/#a", Secrets: good.Secrets}, {URL: "https://exa mple.com", Secrets: good.Secrets},
		{URL: good.URL}, {URL: good.URL, Secrets: []string{"secret"}}, {URL: good.URL, Secrets: []string{"whsec_AAAA"}}, {URL: good.URL, Secrets: []string{strings.TrimPrefix(secret, WebhookSecretPrefix)}},
		{URL: good.URL, Secrets: []string{secret, secret, secret, secret, secret}}, {URL: good.URL, Secrets: good.Secrets, Timeout: 2 * webhookTimeoutMost}, {URL: good.URL, Secrets: good.Secrets, InFlight: 65},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}
