"""Reads notifications with oslo.messaging, as OpenStack's own consumers do, and prints each as a line of JSON."""
import json
import sys
import threading

from oslo_config import cfg
import oslo_messaging


lock = threading.Lock()


def say(doc):
    with lock:
        sys.stdout.write(json.dumps(doc) + "\n")
        sys.stdout.flush()


class Endpoint(object):
    def take(self, priority, ctxt, publisher_id, event_type, payload, metadata):
        say({"priority": priority, "context": ctxt, "publisher_id": publisher_id, "event_type": event_type, "payload": payload,
                          "message_id": metadata["message_id"], "timestamp": metadata["timestamp"]})

    def info(self, *args):
        self.take("info", *args)

    def error(self, *args):
        self.take("error", *args)


conf = cfg.ConfigOpts()
conf([])
oslo_messaging.set_transport_defaults("nova")
transport = oslo_messaging.get_notification_transport(conf, url=sys.argv[1])
if len(sys.argv) > 2:
    conf.set_override("amqp_durable_queues", True, group="oslo_messaging_rabbit")
listener = oslo_messaging.get_notification_listener(transport, [oslo_messaging.Target(topic="versioned_notifications")], [Endpoint()], executor="threading")
listener.start()
say({})
sys.stdin.read()
listener.stop()
listener.wait()
