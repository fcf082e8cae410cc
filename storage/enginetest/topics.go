package enginetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

// topics asks for all topics, page by page.
func topics(t testing.TB, e core.Engine, filter core.Filter, limit int, keep func(string) bool) (all []core.TopicSum) {
	t.Helper()
	after := ""
	for {
		page, err := e.Topics(context.Background(), filter, after, limit, keep)
		if err != nil {
			t.Fatalf("topics of %s after %q: %v", filter, after, err)
		}
		if len(page) > limit {
			t.Fatalf("%d topics, at most %d were asked for", len(page), limit)
		}
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
		after = page[len(page)-1].Topic
	}
}

func everything(string) bool { return true }

// census is what topics must answer, from what was appended.
func census(appended map[core.Offset]string, filter core.Filter, size func(core.Offset) int64) (all []core.TopicSum) {
	sums := make(map[string]core.TopicSum)
	for at, topic := range appended {
		if filter.Match(topic) {
			s := sums[topic]
			sums[topic] = core.TopicSum{Topic: topic, Records: s.Records + 1, Bytes: s.Bytes + size(at), Last: max(s.Last, at)}
		}
	}
	for _, s := range sums {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b core.TopicSum) int { return strings.Compare(a.Topic, b.Topic) })
	return all
}

func testTopics(t *testing.T, e core.Engine) {
	if all := topics(t, e, "#", 10, everything); len(all) != 0 {
		t.Errorf("an empty log has the topics %v", all)
	}
	appended, sizes := make(map[core.Offset]string), make(map[core.Offset]int64)
	for i := range 300 {
		b := &core.Batch{Time: start + int64(i)*1000, Sync: true}
		// The first are in the oldest segments alone, the last in the newest, the
		// others in all of them.
		names := []string{fmt.Sprintf("a/%d/x", i%40), fmt.Sprintf("b/%d", i), "c", "$own/x", "/", "a", "ü/" + strings.Repeat("y", i%7)}
		var got []int64
		for _, name := range names {
			before := len(b.Buf)
			add(b, name, make([]byte, 10+i))
			got = append(got, int64(len(b.Buf)-before))
		}
		first := put(t, e, b)
		for k, name := range names {
			appended[first+core.Offset(k)], sizes[first+core.Offset(k)] = name, got[k]
		}
	}
	size := func(at core.Offset) int64 { return sizes[at] }
	for _, filter := range []core.Filter{"#", "a/#", "a/+/x", "+", "b/17", "b/+", "+/+/x", "$own/#", "none/#", "c", "/"} {
		want := census(appended, filter, size)
		for _, limit := range []int{1, 7, 1000} {
			if limit == 1 && len(want) > 50 {
				continue
			}
			if got := topics(t, e, filter, limit, everything); !slices.Equal(got, want) {
				t.Errorf("%s, %d at a time: %v, want %v", filter, limit, got, want)
			}
		}
	}
	// What is not kept takes no room on a page.
	keep := func(topic string) bool { return strings.HasSuffix(topic, "7") }
	want := slices.DeleteFunc(census(appended, "b/#", size), func(s core.TopicSum) bool { return !keep(s.Topic) })
	if got := topics(t, e, "b/#", 4, keep); !slices.Equal(got, want) || len(want) != 30 {
		t.Errorf("some: %v, want %v", got, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := e.Topics(ctx, "#", "", 10, everything); err != nil && err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

// testTopicsReclaimed: topics are those of what is left, whatever that is.
func testTopicsReclaimed(t *testing.T, e core.Engine) {
	fill(t, e)
	put(t, e, newBatch("late"))
	_, err := e.Reclaim(context.Background(), core.Retention{
		Policies: []core.Policy{{Filters: []core.Filter{"t/+"}, Age: time.Minute}},
		Needs:    needs{"t/3": func(at core.Offset) bool { return at < 100 }}, Now: time.UnixMilli(start + 500_000),
	})
	if err != nil {
		t.Fatal(err)
	}
	left := make(map[core.Offset]string)
	r := read(t, e, 1, 0, nil, 100)
	for i, at := range r.offsets {
		left[at] = r.topics[i]
	}
	want := census(left, "#", func(core.Offset) int64 { return 0 })
	got := topics(t, e, "#", 3, everything)
	for i := range got {
		got[i].Bytes = 0
	}
	if !slices.Equal(got, want) || len(want) < 2 {
		t.Errorf("%v, want %v", got, want)
	}
}
