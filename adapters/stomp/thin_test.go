package stomp_test

import "testing"

func TestThinnestThread(t *testing.T) {
	g := start(t)
	sub := g.connect("1.2")
	sub.send("SUBSCRIBE", "id:0", "destination:/topic/a/b", "receipt:s")
	sub.expect("RECEIPT\nreceipt-id:s\n")
	pub := g.connect("1.2")
	pub.send("SEND", "destination:/topic/a.b", "receipt:1", "x:1", "x:2", " hello")
	pub.expect("RECEIPT\nreceipt-id:1\n")
	r := sub.expect("MESSAGE\nsubscription:0\ndestination:/topic/a/b\n", "x:1\nx:2\n", "\n\nhello^@")
	t.Log(r)
	pub.send("DISCONNECT", "receipt:bye")
	pub.expect("RECEIPT\nreceipt-id:bye\n")
	pub.expectEnd()
}
