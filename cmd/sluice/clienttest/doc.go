// Package clienttest holds the tests that drive the sluice binary with clients
// that this project did not write: mosquitto's command line clients, Paho,
// stomp.py, curl, MQTT.js, STOMP.js and the WebSocket of Node, and the last
// three with EventSource and our own sluice.js in Chromium.
//
// The libraries run in driver processes that know nothing of messages: a test
// says each request in the protocol's own words and reads the answer likewise,
// so that the translation between a protocol and an envelope is written once
// for each protocol, in this package and independently of the adapters:
//
//	test → message → mqtt_test.go → paho_driver.py   → Paho
//	                              → node_driver.mjs  → MQTT.js
//	                              → browser_driver.mjs → MQTT.js in Chromium
//
// [TestMQTTSuites] and [TestStompSuites] put each library through all that its
// protocol has; the other tests take one of each where several protocols meet.
//
// What must be installed stands in apt-packages.txt and package.json; a client
// that is missing fails the test.
package clienttest
