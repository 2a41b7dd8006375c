package notify_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kilonova/internal/compute"
	"kilonova/internal/compute/notify"
	"kilonova/internal/compute/store"
	"kilonova/internal/db"
	"kilonova/test/process"
)

// scene does something and says what is told of it.
type scene struct {
	name string
	do   func(c *cloud)
	want string // a line for each notification: event, publisher
}

// stage is what scenes share.
type stage struct{ id, other, group, aggregate, service, port, flavor string }

func scenes(s *stage) []scene {
	act := func(action string, body any) func(c *cloud) { return func(c *cloud) { c.act(s.id, action, body) } }
	here := "nova-compute:h-1"
	both := func(event string) string { return event + ".start " + here + "\n" + event + ".end " + here }
	chosen := "scheduler.select_destinations.start nova-scheduler:h\nscheduler.select_destinations.end nova-scheduler:h\n"
	return []scene{
		{"create", func(c *cloud) { s.id = c.server("s", doc{"availability_zone": "nova:h-1"}) }, chosen + both("instance.create")},
		{"stop", act("os-stop", nil), both("instance.power_off")},
		{"start", act("os-start", nil), both("instance.power_on")},
		{"soft reboot", act("reboot", doc{"type": "SOFT"}), both("instance.reboot")},
		{"hard reboot", act("reboot", doc{"type": "HARD"}), both("instance.reboot")},
		{"pause", act("pause", nil), both("instance.pause")},
		{"unpause", act("unpause", nil), both("instance.unpause")},
		{"suspend", act("suspend", nil), both("instance.suspend")},
		{"resume", act("resume", nil), both("instance.resume")},
		{"rescue", act("rescue", doc{}), "instance.exists " + here + "\n" + both("instance.rescue")},
		{"unrescue", act("unrescue", nil), both("instance.unrescue")},
		{"crash dump", act("trigger_crash_dump", nil), both("instance.trigger_crash_dump")},
		{"password: Nova has no event", act("changePassword", doc{"adminPass": "x"}), ""},
		{"lock", act("lock", doc{"locked_reason": "why"}), "instance.lock nova-api:h"},
		{"unlock", act("unlock", nil), "instance.unlock nova-api:h"},
		{"image", act("createImage", doc{"name": "snap"}), both("instance.snapshot")},
		{"backup", act("createBackup", doc{"name": "b", "backup_type": "daily", "rotation": 1}), both("instance.snapshot")},
		{"rebuild", func(c *cloud) { c.act(s.id, "rebuild", doc{"imageRef": c.image()}) },
			"instance.rebuild_scheduled nova-conductor:h\ninstance.exists " + here + "\n" + both("instance.rebuild")},
		{"tags", func(c *cloud) { c.call("PUT", "compute", "/servers/"+s.id+"/tags", doc{"tags": []string{"a"}}, "") }, "instance.update nova-api:h"},
		{"shelve, staying", act("shelve", nil), "instance.exists " + here + "\n" + both("instance.shelve")},
		{"unshelve on its host", act("unshelve", nil), both("instance.power_on")},
		{"shelve", act("shelve", nil), "instance.exists " + here + "\n" + both("instance.shelve")},
		{"offload", act("shelveOffload", nil), both("instance.shelve_offload")},
		{"unshelve", act("unshelve", doc{"host": "h-1"}), chosen + both("instance.unshelve")},
		{"attach an interface", func(c *cloud) {
			s.port = c.port("p1")
			c.call("POST", "compute", "/servers/"+s.id+"/os-interface", doc{"interfaceAttachment": doc{"port_id": s.port}}, "interfaceAttachment")
			c.ended(s.id)
		}, both("instance.interface_attach")},
		{"detach an interface", func(c *cloud) {
			c.call("DELETE", "compute", "/servers/"+s.id+"/os-interface/"+s.port, nil, "")
			c.ended(s.id)
		}, both("instance.interface_detach")},
		{"soft delete", func(c *cloud) { c.call("DELETE", "compute", "/servers/"+s.id, nil, ""); c.ended(s.id) }, both("instance.soft_delete")},
		{"restore", act("restore", nil), both("instance.restore")},
	}
}

// moves are the scenes of operations that change the host.
func moves(s *stage) []scene {
	act := func(action string, body any) func(c *cloud) { return func(c *cloud) { c.act(s.id, action, body) } }
	at := func(host string, events ...string) string {
		out := ""
		for _, e := range events {
			out += e + " nova-compute:" + host + "\n"
		}
		return out
	}
	chosen := "scheduler.select_destinations.start nova-scheduler:h\nscheduler.select_destinations.end nova-scheduler:h\n"
	resize := chosen + at("h-1", "instance.exists") + at("h-2", "instance.resize_prep.start", "instance.resize_prep.end") + at("h-1", "instance.resize.start", "instance.resize.end") +
		at("h-2", "instance.resize_finish.start", "instance.resize_finish.end")
	live := func(from, to string) string {
		return chosen + at(to, "instance.live_migration_pre.start", "instance.live_migration_pre.end") + at(from, "instance.live_migration_post.start") +
			at(to, "instance.live_migration_post_dest.start", "instance.live_migration_post_dest.end") + at(from, "instance.live_migration_post.end")
	}
	return []scene{
		{"create", func(c *cloud) { s.id = c.server("s", doc{"availability_zone": "nova:h-1"}) }, chosen + at("h-1", "instance.create.start", "instance.create.end")},
		{"resize", func(c *cloud) {
			c.flavor("2", "big", 2, nil)
			c.since()
			c.disable("h-1", true)
			c.disable("h-3", true)
			c.act(s.id, "resize", doc{"flavorRef": "2"})
			c.disable("h-1", false)
			c.disable("h-3", false)
		}, at("h-1", "service.update") + at("h-3", "service.update") + resize + at("h-1", "service.update") + at("h-3", "service.update")},
		{"revert", act("revertResize", nil), at("h-2", "instance.exists") + at("h-1", "instance.resize_revert.start", "instance.resize_revert.end")},
		{"cold migrate", act("migrate", doc{"host": "h-2"}), resize},
		{"confirm", act("confirmResize", nil), at("h-1", "instance.resize_confirm.start", "instance.resize_confirm.end")},
		{"live migrate", act("os-migrateLive", doc{"host": "h-3", "block_migration": "auto"}), live("h-2", "h-3")},
		{"evacuate", func(c *cloud) {
			c.forceDown("h-3", true)
			for moved := false; !moved; { // a conductor learns within seconds that the host is down, and refuses until then
				c.since()
				c.act(s.id, "evacuate", doc{"host": "h-1"})
				moved = c.settle(s.id)["OS-EXT-SRV-ATTR:host"] == "h-1"
			}
		}, "instance.evacuate nova-api:h\n" + chosen + "instance.rebuild_scheduled nova-conductor:h\n" +
			at("h-1", "instance.exists", "instance.rebuild.start", "instance.rebuild.end")},
		{"delete", func(c *cloud) { c.call("DELETE", "compute", "/servers/"+s.id, nil, ""); c.ended(s.id) },
			at("h-1", "instance.delete.start", "instance.shutdown.start", "instance.shutdown.end", "instance.delete.end")},
	}
}

// failures are the scenes of operations that end badly. The fake driver fails where a flavor says so.
func failures(s *stage) []scene {
	at := func(host string, events ...string) string {
		out := ""
		for _, e := range events {
			out += e + " nova-compute:" + host + "\n"
		}
		return out
	}
	const start, end = "scheduler.select_destinations.start nova-scheduler:h\n", "scheduler.select_destinations.end nova-scheduler:h\n"
	with := func(specs map[string]string) func(c *cloud) {
		return func(c *cloud) {
			c.flavor(s.flavor, "f"+s.flavor, 1, specs)
			c.since()
		}
	}
	return []scene{
		{"no host: too large a flavor", func(c *cloud) {
			c.call("POST", "compute", "/flavors", doc{"flavor": doc{"id": "huge", "name": "huge", "vcpus": 1, "ram": 64, "disk": 10_000_000}}, "flavor")
			c.since()
			s.id = c.server("huge", doc{"flavorRef": "huge"})
		}, start + "compute_task.build_instances.error nova-conductor:h\n"},
		{"delete a server that no host has", func(c *cloud) { c.call("DELETE", "compute", "/servers/"+s.id, nil, ""); c.ended(s.id) },
			"instance.delete.start nova-api:h\ninstance.delete.end nova-api:h\n"},
		{"a build that fails on its only host", func(c *cloud) {
			s.flavor = "bad-build"
			with(map[string]string{"fake:fail:spawn": "no heat"})(c)
			s.id = c.server("s", doc{"flavorRef": s.flavor, "availability_zone": "nova:h-1"})
		}, start + end + at("h-1", "instance.create.start", "instance.create.error", "compute.exception")},
		{"a reboot that fails", func(c *cloud) {
			s.flavor = "bad-reboot"
			with(map[string]string{"fake:fail:reboot": "no heat", "fake:fail:pre-live-migrate": "no way", "fake:fail:attach-interface": "no slot"})(c)
			s.id = c.server("s", doc{"flavorRef": s.flavor, "availability_zone": "nova:h-1"})
			c.since()
			c.act(s.id, "reboot", doc{"type": "SOFT"})
		}, at("h-1", "instance.reboot.start", "instance.reboot.error", "compute.exception")},
		{"an interface that cannot be attached", func(c *cloud) {
			s.port = c.port("p1")
			c.since()
			_, _, _ = c.Do(c.t.Context(), "POST", "compute", "/servers/"+s.id+"/os-interface", doc{"interfaceAttachment": doc{"port_id": s.port}}, nil) // refused at once or later
			c.ended(s.id)
		}, at("h-1", "instance.interface_attach.start", "instance.interface_attach.error", "compute.exception")},
		{"a live migration that the destination refuses", func(c *cloud) { c.act(s.id, "os-migrateLive", doc{"host": "h-2", "block_migration": "auto"}) },
			start + end + at("h-2", "instance.live_migration_pre.start", "compute.exception") + at("h-1", "instance.live_migration_rollback.start") +
				at("h-2", "instance.live_migration_rollback_dest.start", "instance.live_migration_rollback_dest.end") + at("h-1", "instance.live_migration_rollback.end")},
		{"a resize that no host can take", func(c *cloud) {
			c.flavor("wide", "wide", 1, map[string]string{"trait:HW_CPU_X86_AVX512F": "required"})
			c.since()
			c.act(s.id, "resize", doc{"flavorRef": "wide"})
		}, start + "compute_task.migrate_server.error nova-conductor:h\n"},
		{"a resize that fails", func(c *cloud) {
			c.flavor("frail", "frail", 1, map[string]string{"fake:fail:finish-resize": "no heat"})
			c.disable("h-3", true)
			c.since()
			c.act(s.id, "resize", doc{"flavorRef": "frail"})
		}, start + end + at("h-1", "instance.exists") + at("h-2", "instance.resize_prep.start", "instance.resize_prep.end") + at("h-1", "instance.resize.start", "instance.resize.end") +
			at("h-2", "instance.resize_finish.start", "instance.resize.error", "compute.exception")},
		{"a rebuild whose image no host can take", func(c *cloud) { c.act(s.id, "rebuild", doc{"imageRef": c.foreign()}) },
			start + "compute_task.rebuild_server.error nova-conductor:h\n"},
		{"a rebuild that fails", func(c *cloud) {
			c.flavor("bad-rebuild", "bad-rebuild", 1, map[string]string{"fake:fail:spawn": "no heat;hosts=h-1"})
			s.other = c.server("r", doc{"flavorRef": "bad-rebuild", "availability_zone": "nova:h-2"})
			c.act(s.other, "migrate", doc{"host": "h-1"})
			c.act(s.other, "confirmResize", nil)
			c.since()
			c.act(s.other, "rebuild", doc{"imageRef": c.image()})
		}, "instance.rebuild_scheduled nova-conductor:h\n" + at("h-1", "instance.exists", "instance.rebuild.start", "instance.rebuild.error", "compute.exception")},
		{"a build that is tried elsewhere", func(c *cloud) {
			c.flavor("half", "half", 1, map[string]string{"fake:fail:spawn": "no heat;hosts=h-1,h-2"})
			c.since()
			s.other = c.server("r", doc{"flavorRef": "half"})
		}, start + end + at("FIRST", "instance.create.start", "instance.create.error") + start + end + at("SECOND", "instance.create.start", "instance.create.error") + start +
			"compute_task.build_instances.error nova-conductor:h\n"},
	}
}

// beside are the scenes of what happens to a live migration that takes its time.
func beside(s *stage) []scene {
	until := func(c *cloud, migration func() string) string {
		for {
			if m := migration(); m != "" {
				return m
			}
		}
	}
	running := func(c *cloud) func() string {
		return func() string {
			var out struct {
				Migrations []struct {
					ID     int
					Status string
				}
			}
			_, _, err := c.Do(c.t.Context(), "GET", "compute", "/servers/"+s.id+"/migrations", nil, &out)
			c.must(err)
			for _, m := range out.Migrations {
				if m.Status == "running" {
					return fmt.Sprint(m.ID)
				}
			}
			return ""
		}
	}
	begin := func(c *cloud) string {
		c.call("POST", "compute", "/servers/"+s.id+"/action", doc{"os-migrateLive": doc{"host": "h-2", "block_migration": "auto"}}, "")
		return until(c, running(c))
	}
	return []scene{
		{"a live migration that is aborted", func(c *cloud) {
			c.flavor("slow", "slow", 1, map[string]string{"fake:delay:live-migrate": "3s"})
			s.id = c.server("s", doc{"flavorRef": "slow", "availability_zone": "nova:h-1"})
			c.since()
			c.call("DELETE", "compute", "/servers/"+s.id+"/migrations/"+begin(c), nil, "")
			c.ended(s.id)
		}, "instance.live_migration_abort.start instance.live_migration_abort.end instance.live_migration_rollback.start instance.live_migration_rollback_dest.start " +
			"instance.live_migration_rollback_dest.end instance.live_migration_rollback.end"},
		{"a live migration that is hastened", func(c *cloud) {
			c.call("POST", "compute", "/servers/"+s.id+"/migrations/"+begin(c)+"/action", doc{"force_complete": nil}, "")
			c.ended(s.id)
		}, "instance.live_migration_force_complete.start instance.live_migration_force_complete.end instance.live_migration_post.start instance.live_migration_post_dest.start " +
			"instance.live_migration_post_dest.end instance.live_migration_post.end"},
	}
}

// things are the scenes of the other nouns.
func things(s *stage) []scene {
	api := func(events ...string) string { return strings.Join(events, " nova-api:h\n") + " nova-api:h\n" }
	both := func(event string) string { return api(event+".start", event+".end") }
	return []scene{
		{"make a flavor", func(c *cloud) { c.flavor("f", "f", 1, map[string]string{"a": "b"}) }, api("flavor.create", "flavor.update")},
		{"describe it", func(c *cloud) {
			c.call("PUT", "compute", "/flavors/f", doc{"flavor": doc{"description": "d"}}, "flavor")
		}, api("flavor.update")},
		{"delete it", func(c *cloud) { c.call("DELETE", "compute", "/flavors/f", nil, "") }, api("flavor.delete")},
		{"a key pair", func(c *cloud) {
			c.call("POST", "compute", "/os-keypairs", doc{"keypair": doc{"name": "k", "public_key": publicKey, "type": "ssh"}}, "keypair")
		}, both("keypair.import")},
		{"a key pair made here", func(c *cloud) {
			c.call("POST", "compute", "/os-keypairs", doc{"keypair": doc{"name": "made", "type": "ssh"}}, "keypair")
		}, both("keypair.create")},
		{"a group and its member", func(c *cloud) {
			s.group, _ = c.call("POST", "compute", "/os-server-groups", doc{"server_group": doc{"name": "g", "policy": "anti-affinity", "rules": doc{"max_server_per_host": 2}}}, "server_group")["id"].(string)
			var out doc
			_, _, err := c.Do(c.t.Context(), "POST", "compute", "/servers", doc{"server": doc{"name": "s", "flavorRef": "1", "imageRef": c.image(), "networks": "none", "availability_zone": "nova:h-1"},
				"os:scheduler_hints": doc{"group": s.group}}, &out)
			c.must(err)
			s.id, _ = out["server"].(doc)["id"].(string)
			c.settle(s.id)
		}, api("server_group.create", "server_group.add_member") + "scheduler.select_destinations.start nova-scheduler:h\nscheduler.select_destinations.end nova-scheduler:h\n" +
			"instance.create.start nova-compute:h-1\ninstance.create.end nova-compute:h-1\n"},
		{"delete the group", func(c *cloud) { c.call("DELETE", "compute", "/os-server-groups/"+s.group, nil, "") }, api("server_group.delete")},
		{"delete the key pair", func(c *cloud) { c.call("DELETE", "compute", "/os-keypairs/k", nil, "") }, both("keypair.delete")},
		{"an aggregate", func(c *cloud) {
			id := c.call("POST", "compute", "/os-aggregates", doc{"aggregate": doc{"name": "a"}}, "aggregate")["id"]
			s.aggregate = fmt.Sprint("/os-aggregates/", id)
		}, both("aggregate.create")},
		{"rename it", func(c *cloud) { c.call("PUT", "compute", s.aggregate, doc{"aggregate": doc{"name": "b"}}, "aggregate") }, both("aggregate.update_prop")},
		{"its metadata", func(c *cloud) {
			c.call("POST", "compute", s.aggregate+"/action", doc{"set_metadata": doc{"metadata": doc{"x": "y"}}}, "aggregate")
		}, both("aggregate.update_metadata")},
		{"a host in it", func(c *cloud) {
			c.call("POST", "compute", s.aggregate+"/action", doc{"add_host": doc{"host": "h-2"}}, "aggregate")
		}, both("aggregate.add_host")},
		{"images on its hosts", func(c *cloud) {
			c.call("POST", "compute", s.aggregate+"/images", doc{"cache": []doc{{"id": c.image()}}}, "")
			c.until("aggregate.cache_images.end")
		}, "aggregate.cache_images.start nova-api:h\naggregate.cache_images.progress nova-conductor:h\naggregate.cache_images.end nova-api:h\n"},
		{"no host in it", func(c *cloud) {
			c.call("POST", "compute", s.aggregate+"/action", doc{"remove_host": doc{"host": "h-2"}}, "aggregate")
		}, both("aggregate.remove_host")},
		{"no aggregate", func(c *cloud) { c.call("DELETE", "compute", s.aggregate, nil, "") }, both("aggregate.delete")},
		{"an operator takes a host out", func(c *cloud) { c.disable("h-3", true) }, "service.update nova-compute:h-3\n"},
		{"and removes it", func(c *cloud) { c.call("DELETE", "compute", "/os-services/"+c.service("h-3"), nil, "") }, "service.delete nova-compute:h-3\n"},
		{"what is refused is not told", func(c *cloud) {
			c.refused(404, "DELETE", "/flavors/none", nil)
			c.refused(404, "DELETE", "/os-keypairs/none", nil)
			c.refused(409, "POST", "/flavors", doc{"flavor": doc{"id": "1", "name": "x", "vcpus": 1, "ram": 64, "disk": 0}})
			c.refused(409, "POST", "/servers/"+s.id+"/action", doc{"unpause": nil})
		}, ""},
	}
}

// TestEvents plays every operation, and every change of the other nouns, and demands that all that can be told was told.
func TestEvents(t *testing.T) {
	told := map[string]bool{}
	run := func(name string, flags map[string]string, scenes func(*stage) []scene) {
		t.Run(name, func(t *testing.T) { play(newCloud(t, flags), scenes(&stage{}), told) })
	}
	run("operations", map[string]string{"compute.shelved_offload_time": "1h", "compute.reclaim_instance_interval": "1h"}, scenes)
	run("shelving at once", nil, offloading)
	run("moves", nil, moves)
	run("failures", nil, failures)
	run("things", nil, things)
	t.Run("beside a move", func(t *testing.T) { together(newCloud(t, nil), beside(&stage{}), told) })
	t.Run("a new service", func(t *testing.T) {
		w := newWorld(t)
		w.n = w.notifier(notify.Config{Sinks: []notify.Sink{w.sink}})
		w.write(func(tx *db.Tx) error {
			return w.store.SaveHost(t.Context(), tx, &compute.Host{Name: "c1", Version: 66}, "c1")
		})
		w.publish(w.n)
		info := `{"hostname":"node1","host_ip":"10.0.0.1","metrics":{"cpu.user.percent":0.254,"cpu.user.time":12000000000}}`
		w.write(func(tx *db.Tx) error {
			return w.store.SaveHost(t.Context(), tx, &compute.Host{Name: "c1", Version: 66, Info: []byte(info)}, "node1")
		})
		w.publish(w.n)
		if err := w.store.Told(t.Context(), store.LibvirtLost, &store.Trouble{Host: "c1", IP: "10.0.0.1", Cause: "no socket"}); err != nil {
			t.Fatal(err)
		}
		w.publish(w.n)
		if got := w.sink.short(); got != "service.create nova-compute:c1; metrics.update nova-compute:c1; libvirt.connect.error nova-compute:c1" {
			t.Fatal(got)
		}
		d := w.sink.notes[1].Payload.Data
		first := d["metrics"].([]any)[0].(doc)["nova_object.data"].(doc)
		if d["host"] != "c1" || d["nodename"] != "node1" || d["host_ip"] != "10.0.0.1" || first["name"] != "cpu.user.percent" || first["value"] != 25.0 {
			t.Error(d)
		}
		for _, n := range w.sink.notes {
			n.check(t, known(t))
			told[n.Event] = true
		}
	})
	for _, e := range notify.Events() {
		if !told[e] {
			t.Errorf("no scene makes %s", e)
		}
	}
}

// offloading are the scenes of a cloud in which what is shelved leaves its host.
func offloading(s *stage) []scene {
	at := "nova-compute:h-1\n"
	return []scene{
		{"create", func(c *cloud) { s.id = c.server("s", doc{"availability_zone": "nova:h-1"}); c.since() }, ""},
		{"shelve", func(c *cloud) { c.act(s.id, "shelve", nil) }, "instance.exists " + at + "instance.shelve.start " + at + "instance.shelve.end " + at + "instance.shelve_offload.start " + at +
			"instance.shelve_offload.end " + at},
	}
}

func play(c *cloud, all []scene, told map[string]bool) {
	c.t.Helper()
	list := known(c.t)
	c.image()
	first := c.since()
	for _, n := range first {
		n.check(c.t, list)
		told[n.Event] = true
	}
	for _, sc := range all {
		sc.do(c)
		notes := c.since()
		for _, n := range notes {
			n.check(c.t, list)
			told[n.Event] = true
		}
		got := strings.Join(short(notes), "\n")
		if strings.Contains(sc.want, "FIRST") { // which host comes first is the scheduler's
			for _, name := range []string{"FIRST", "SECOND"} {
				if h := regexp.MustCompile(`h-\d`).FindString(got); h != "" {
					got = strings.ReplaceAll(got, h, name)
				}
			}
		}
		if diff := cmp.Diff(strings.TrimSpace(sc.want), got); diff != "" {
			c.t.Errorf("%s (-want +got):\n%s", sc.name, diff)
		}
	}
}

// together plays scenes of operations that run side by side: only what is told counts, and of each event type the order.
func together(c *cloud, all []scene, told map[string]bool) {
	c.t.Helper()
	list := known(c.t)
	for _, sc := range all {
		c.since()
		sc.do(c)
		got := map[string]bool{}
		for _, n := range c.since() {
			n.check(c.t, list)
			told[n.Event], got[n.Event] = true, true
		}
		for _, e := range strings.Fields(sc.want) {
			if !got[e] {
				c.t.Errorf("%s: %s is missing", sc.name, e)
			}
		}
	}
}

// TestInitiator: a payload names who asked, not whose the server is.
func TestInitiator(t *testing.T) {
	c := newCloud(t, map[string]string{"notifications.notify_on_state_change": notify.OnVMState})
	c.image()
	admin := c.Client
	demo, err := process.Login(t.Context(), c.app.URL(), c.dir, "demo")
	c.must(err)
	demo.Version = admin.Version
	c.Client = demo
	id := c.server("s", nil)
	c.Client = admin
	c.since()
	c.act(id, "pause", nil)
	c.call("PUT", "compute", "/servers/"+id, doc{"server": doc{"name": "renamed"}}, "server")
	notes := c.since()
	seen := 0
	for _, n := range notes {
		d := n.Payload.Data
		if d["action_initiator_project"] == d["tenant_id"] || d["action_initiator_user"] == d["user_id"] || d["action_initiator_user"] == nil || !strings.HasPrefix(fmt.Sprint(d["request_id"]), "req-") {
			t.Errorf("%s: user %v of %v, server of user %v of %v, request %v", n.Event, d["action_initiator_user"], d["action_initiator_project"], d["user_id"], d["tenant_id"], d["request_id"])
		}
		if d["old_display_name"] == "s" && d["display_name"] == "renamed" && n.Publisher == "nova-api:h" {
			seen++
		}
	}
	if len(notes) != 4 || seen != 1 {
		t.Errorf("told: %v", short(notes))
	}
}

// TestOff: switched off, nothing is written and nothing is sent; there is not even a table.
func TestOff(t *testing.T) {
	c := newCloud(t, map[string]string{"notifications.notification_format": "none"})
	id := c.server("s", nil)
	c.act(id, "pause", nil)
	c.call("DELETE", "compute", "/servers/"+id, nil, "")
	c.ended(id)
	c.must(c.conn.Flush())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) > 0 {
		t.Errorf("told: %v", short(c.seen))
	}
	d, err := db.Open(t.Context(), "sqlite://"+filepath.Join(c.dir, "kilonova.db"))
	c.must(err)
	defer func() { _ = d.Close() }()
	var n int
	c.must(d.QueryRow(t.Context(), "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 'compute_notif%'").Scan(&n))
	if n != 0 {
		t.Errorf("%d tables were made", n)
	}
}
