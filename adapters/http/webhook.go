package http

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluicemq/sluice/adapters"
)

// newSecret makes a secret.
func newSecret() string {
	var key [32]byte
	rand.Read(key[:])
	return adapters.WebhookSecretPrefix + base64.StdEncoding.EncodeToString(key[:])
}

// signWebhook sets the headers that a receiver checks: an id that stays the same over
// all attempts, when this attempt was made, and a signature of both and the
// body by each secret (Standard Webhooks, "Signature scheme").
func signWebhook(w *adapters.Webhook, h nethttp.Header, id string, at time.Time, body []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, s := range w.Secrets {
		key, err := adapters.WebhookKey(s)
		if err != nil {
			panic(err) // Check has seen it
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
}

// webhookBody is a webhook under /v1/ and in the queue's meta.
type webhookBody struct {
	URL      string   `json:"url"`
	Secrets  []string `json:"secrets,omitempty"`
	Timeout  span     `json:"timeout,omitempty"`
	InFlight int      `json:"in_flight,omitempty"`
}

func (b webhookBody) webhook() adapters.Webhook {
	return adapters.Webhook{URL: b.URL, Secrets: b.Secrets, Timeout: time.Duration(b.Timeout), InFlight: b.InFlight}
}

// queueMeta is what this adapter keeps with a queue.
type queueMeta struct {
	Webhook *webhookBody `json:"webhook,omitempty"`
}

// webhookOf is the webhook that is kept with a queue, if there is one.
func webhookOf(meta []byte) (adapters.Webhook, bool) {
	var m queueMeta
	if json.Unmarshal(meta, &m) != nil || m.Webhook == nil {
		return adapters.Webhook{}, false
	}
	w := m.Webhook.webhook()
	return w, w.Check() == nil
}

// webhookInfo describes a webhook and how it does. Secrets are not told.
type webhookInfo struct {
	Queue    string `json:"queue"`
	URL      string `json:"url"`
	Secrets  int    `json:"secrets"`
	Timeout  span   `json:"timeout"`
	InFlight int    `json:"in_flight"`
	// Configured says that it stands in the broker's configuration.
	Configured bool   `json:"configured"`
	Delivered  uint64 `json:"delivered"`
	Failed     uint64 `json:"failed"`
	// Error is why the latest attempt failed; empty where it did not.
	Error string `json:"error,omitempty"`
}

var webhookList = listing[webhookInfo]{
	name: func(w *webhookInfo) string { return w.Queue },
	keys: map[string]func(*webhookInfo) int64{
		"delivered": func(w *webhookInfo) int64 { return int64(w.Delivered) },
		"failed":    func(w *webhookInfo) int64 { return int64(w.Failed) },
	},
}

// listWebhooks is GET /v1/webhooks: those of queues that the client may see.
func (s *Server) listWebhooks(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, webhookList.parameters()...)
	s.admin(w, r, nil, func(h *hold) error {
		p := webhookList.page(&q, func(yield func(webhookInfo) bool) {
			for info := range h.client.Queues("") {
				if hook := s.hooks.find(info.Name); hook != nil && !yield(hook.info()) {
					return
				}
			}
		})
		if q.err != nil {
			return q.err
		}
		answerList(s, w, r, p)
		return nil
	})
}

// showWebhook is GET /v1/queues/<queue>/webhook.
func (s *Server) showWebhook(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		hook, err := s.hookOf(r, h)
		if err != nil {
			return err
		}
		w.Header()["Etag"] = []string{hook.tag()}
		s.answerJSON(w, 200, hook.info())
		return nil
	})
}

// hookOf is the webhook of the queue that a path names.
func (s *Server) hookOf(r *nethttp.Request, h *hold) (*hook, error) {
	name, err := queueOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := h.client.Queue(name); err != nil {
		return nil, err
	}
	hook := s.hooks.find(name)
	if hook == nil {
		return nil, notFound.with("the queue " + quote(name) + " has no webhook")
	}
	return hook, nil
}

// setWebhook is PUT /v1/queues/<queue>/webhook. Without secrets it keeps those
// that it had, or makes one, which is told this once.
func (s *Server) setWebhook(w nethttp.ResponseWriter, r *nethttp.Request) {
	var in webhookBody
	s.admin(w, r, &in, func(h *hold) error {
		name, err := queueOf(r)
		if err != nil {
			return err
		}
		status, tag, made := 201, "", ""
		if before := s.hooks.find(name); before != nil {
			if before.configured {
				return conflict.with("the webhook stands in the broker's configuration: change it there")
			}
			status, tag = 200, before.tag()
			if in.Secrets == nil {
				in.Secrets = before.webhook.Secrets
			}
		}
		if err := checkMatch(r, tag); err != nil {
			return err
		}
		if len(in.Secrets) == 0 {
			made = newSecret()
			in.Secrets = []string{made}
		}
		webhook := in.webhook()
		if err := webhook.Check(); err != nil {
			return badRequest.with(err.Error())
		}
		meta, err := json.Marshal(queueMeta{&in})
		if err != nil {
			return err
		}
		if err := h.client.SetQueueMeta(r.Context(), name, meta); err != nil {
			return err
		}
		hook := s.hooks.set(name, webhook, false)
		w.Header()["Etag"] = []string{hook.tag()}
		s.answerJSON(w, status, struct {
			webhookInfo
			Secret string `json:"secret,omitempty"`
		}{hook.info(), made})
		return nil
	})
}

// deleteWebhook is DELETE /v1/queues/<queue>/webhook. What waits stays in the
// queue.
func (s *Server) deleteWebhook(w nethttp.ResponseWriter, r *nethttp.Request) {
	s.admin(w, r, nil, func(h *hold) error {
		hook, err := s.hookOf(r, h)
		if err != nil {
			return err
		}
		if hook.configured {
			return conflict.with("the webhook stands in the broker's configuration: remove it there")
		}
		if err := checkMatch(r, hook.tag()); err != nil {
			return err
		}
		if err := h.client.SetQueueMeta(r.Context(), hook.queue, nil); err != nil {
			return err
		}
		s.hooks.remove(hook)
		s.answerNothing(w)
		return nil
	})
}
