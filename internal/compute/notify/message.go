package notify

import (
	"encoding/json"
	"strings"
	"time"
)

// Message is what a sink publishes.
type Message struct {
	ID      string // of the notification: repeats have the same
	Event   string
	Routing string // TOPIC.PRIORITY, as oslo.messaging names the queue
	Body    []byte // oslo.messaging's envelope 2.0 as JSON
}

// message is a notification before it is written.
type message struct {
	ID, Event, Priority, Publisher string
	Payload                        object
	who                            initiator
}

// envelopeTime is the form of times in the envelope: that of Python's str(datetime).
const envelopeTime = "2006-01-02 15:04:05.000000"

// encode makes the inner message of oslo.messaging's notification envelope. _unique_id is what its listeners know repeats by.
func (m *message) encode(now time.Time) (string, error) {
	doc := map[string]any{"message_id": m.ID, "publisher_id": m.Publisher, "event_type": m.Event, "priority": m.Priority, "payload": m.Payload,
		"timestamp": now.Format(envelopeTime), "_unique_id": strings.ReplaceAll(m.ID, "-", ""),
		"_context_request_id": orNull(m.who.request), "_context_user_id": orNull(m.who.user), "_context_project_id": orNull(m.who.project)}
	b, err := json.Marshal(doc)
	return string(b), err
}

// envelope wraps an inner message for the wire.
func envelope(inner string) ([]byte, error) {
	return json.Marshal(map[string]string{"oslo.version": "2.0", "oslo.message": inner})
}

// object is a versioned object of Nova's notifications as it goes over the wire.
type object struct {
	Name      string         `json:"nova_object.name"`
	Namespace string         `json:"nova_object.namespace"`
	Version   string         `json:"nova_object.version"`
	Data      map[string]any `json:"nova_object.data"`
}

// versions are the versions of the payload objects; the fields of that version are those that the makers in this package write.
var versions = map[string]string{
	"InstancePayload": "1.9", "InstanceActionPayload": "1.9", "InstanceCreatePayload": "1.13", "InstanceUpdatePayload": "2.1", "InstanceExistsPayload": "2.1",
	"InstanceActionResizePrepPayload": "1.4", "InstanceActionRescuePayload": "1.4", "InstanceActionRebuildPayload": "1.10", "InstanceActionSnapshotPayload": "1.10",
	"InstanceStateUpdatePayload": "1.0", "AuditPeriodPayload": "1.0", "IpPayload": "1.0", "BlockDevicePayload": "1.0", "FlavorPayload": "1.4", "KeypairPayload": "1.0",
	"ExceptionPayload": "1.1", "AggregatePayload": "1.1", "AggregateCachePayload": "1.0", "ServerGroupPayload": "1.1", "ServiceStatusPayload": "1.1",
	"ComputeTaskPayload": "1.0", "RequestSpecPayload": "1.1", "ImageMetaPayload": "1.0", "ImageMetaPropsPayload": "1.19", "InstancePCIRequestsPayload": "1.0",
	"DestinationPayload": "1.0", "MetricsPayload": "1.0", "LibvirtErrorPayload": "1.0", "MetricPayload": "1.0", "SchedulerRetriesPayload": "1.0",
}

func made(name string, data map[string]any) object {
	return object{Name: name, Namespace: "nova", Version: versions[name], Data: data}
}

// orNull is null for the zero value.
func orNull[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// stamp is a time of a payload.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
