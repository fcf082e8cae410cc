package bench

import "fmt"

// gridScenarios are MQTT's usual loads at every QoS and two sizes, for whoever
// names one: `mqtt-q1-fan-out-100-1k` is QoS 1 from one publisher to 100
// subscribers with payloads of 1 KiB. Confirms of Sluice's wait for the disk,
// mosquitto keeps nothing.
func gridScenarios() []scenario {
	var all []scenario
	goals := []goal{{reading: "messages", times: 1}, {reading: "server CPU", times: 2}}
	for qos := range byte(3) {
		for _, sh := range []struct {
			name, about string
			shape       mqttShape
		}{
			{"fan-in", "50 publishers, 1 subscriber", mqttShape{publishers: 50, subscribers: 1, window: 8192, flight: 64}},
			{"fan-out-1", "1 publisher, 1 subscriber", mqttShape{publishers: 1, subscribers: 1, window: 4096, flight: 256}},
			{"fan-out-100", "1 publisher, 100 subscribers", mqttShape{publishers: 1, subscribers: 100, window: 256, flight: 256}},
			{"fan-out-1000", "1 publisher, 1,000 subscribers", mqttShape{publishers: 1, subscribers: 1000, window: 64, flight: 64}},
			{"pairs", "50 publishers, 50 subscribers, one to one", mqttShape{publishers: 50, subscribers: 50, pairs: true, window: 8192, flight: 64}},
		} {
			for _, size := range []struct {
				name  string
				bytes int
			}{{"100", 100}, {"1k", 1024}} {
				shape := sh.shape
				shape.qos, shape.size, shape.level = qos, size.bytes, 4
				if qos == 0 {
					shape.flight = 0
				} else {
					shape.level = 5 // for the subscribers' Receive Maximum
				}
				s := pubsubScenario(fmt.Sprintf("mqtt-q%d-%s-%s", qos, sh.name, size.name),
					fmt.Sprintf("QoS %d, %s, %d bytes", qos, sh.about, size.bytes), goals, shape)
				s.named = true
				all = append(all, s)
			}
		}
	}
	idle := mqttIdleScenario("mqtt-idle-19000", 19_000, 16)
	idle.named = true
	return append(append(all, idle), scaleScenarios()...)
}
