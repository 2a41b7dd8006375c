package notify_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/compute/notify"
)

// The fields of each payload object at its version.
const (
	instanceFields = "uuid user_id tenant_id reservation_id display_name display_description host_name host node os_type architecture availability_zone flavor image_uuid key_name " +
		"kernel_id ramdisk_id created_at launched_at terminated_at deleted_at updated_at state power_state task_state progress ip_addresses block_devices metadata locked " +
		"auto_disk_config request_id action_initiator_user action_initiator_project locked_reason shares"
	actionFields = instanceFields + " fault"
)

// objects is what Nova's documentation says of the payload objects: version and fields.
func objects() map[string][2]string {
	return map[string][2]string{
		"InstanceActionPayload":           {"1.9", actionFields},
		"InstanceCreatePayload":           {"1.13", actionFields + " keypairs tags trusted_image_certificates instance_name"},
		"InstanceUpdatePayload":           {"2.1", instanceFields + " state_update audit_period old_display_name tags"},
		"InstanceExistsPayload":           {"2.1", instanceFields + " audit_period"},
		"InstanceActionResizePrepPayload": {"1.4", actionFields + " new_flavor"},
		"InstanceActionRescuePayload":     {"1.4", actionFields + " rescue_image_ref"},
		"InstanceActionRebuildPayload":    {"1.10", actionFields + " trusted_image_certificates"},
		"InstanceActionSnapshotPayload":   {"1.10", actionFields + " snapshot_image_id"},
		"InstanceStateUpdatePayload":      {"1.0", "old_state state old_task_state new_task_state"},
		"AuditPeriodPayload":              {"1.0", "audit_period_beginning audit_period_ending"},
		"IpPayload":                       {"1.0", "label mac meta port_uuid version address device_name"},
		"FlavorPayload":                   {"1.4", "flavorid memory_mb vcpus root_gb ephemeral_gb name swap rxtx_factor vcpu_weight disabled is_public extra_specs projects description"},
		"KeypairPayload":                  {"1.0", "user_id name fingerprint public_key type"},
		"ExceptionPayload":                {"1.1", "module_name function_name exception exception_message traceback"},
		"AggregatePayload":                {"1.1", "id uuid name hosts metadata"},
		"AggregateCachePayload":           {"1.0", "id uuid name host images_cached images_failed index total"},
		"ServerGroupPayload":              {"1.1", "uuid name user_id project_id policies members hosts policy rules"},
		"ServiceStatusPayload":            {"1.1", "host binary topic report_count disabled disabled_reason availability_zone last_seen_up forced_down version uuid"},
		"ComputeTaskPayload":              {"1.0", "instance_uuid request_spec state reason"},
		"InstancePCIRequestsPayload":      {"1.0", "instance_uuid requests"},
		"ImageMetaPropsPayload":           {"1.19", ""}, // those that the image has
		"DestinationPayload":              {"1.0", "host node cell aggregates"},
		"LibvirtErrorPayload":             {"1.0", "ip reason"},
		"MetricsPayload":                  {"1.0", "host host_ip nodename metrics"},
		"MetricPayload":                   {"1.0", "name value numa_membw_values timestamp source"},
		"SchedulerRetriesPayload":         {"1.0", "num_attempts hosts"},
		"RequestSpecPayload": {"1.1", "instance_uuid project_id user_id availability_zone flavor force_hosts force_nodes ignore_hosts image instance_group numa_topology pci_requests " +
			"num_instances requested_destination retry scheduler_hints security_groups"},
		"ImageMetaPayload": {"1.0", "id name status visibility protected checksum owner size virtual_size container_format disk_format created_at updated_at tags direct_url min_ram " +
			"min_disk properties"},
	}
}

var (
	timeForm  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	timeField = regexp.MustCompile(`_at$|^audit_period_|^last_seen_up$`)
)

// check judges the form of a notification: envelope, and each object with exactly its fields.
func (n note) check(t *testing.T, known map[string][3]string) {
	t.Helper()
	want, ok := known[n.Event]
	if !ok {
		t.Errorf("%s is no notification of Nova", n.Event)
		return
	}
	if n.Payload.Name != want[1] {
		t.Errorf("%s has the payload %s, want %s", n.Event, n.Payload.Name, want[1])
	}
	level := "INFO"
	if strings.HasSuffix(n.Event, ".error") || n.Event == "compute.exception" {
		level = "ERROR"
	}
	if n.Priority != level || n.subject != "notifications.versioned_notifications."+strings.ToLower(level) || len(n.ID) != 36 {
		t.Errorf("%s has priority %s, subject %s, id %s", n.Event, n.Priority, n.subject, n.ID)
	}
	if _, err := time.Parse("2006-01-02 15:04:05.000000", n.Timestamp); err != nil {
		t.Errorf("%s: timestamp %v", n.Event, err)
	}
	p := n.Payload
	checkObject(t, n.Event, map[string]any{"nova_object.name": p.Name, "nova_object.namespace": p.Namespace, "nova_object.version": p.Version, "nova_object.data": p.Data})
	_, faulty := p.Data["fault"]
	if failed := strings.HasSuffix(n.Event, ".error"); faulty && failed == (p.Data["fault"] == nil) {
		t.Errorf("%s: fault %v", n.Event, p.Data["fault"])
	}
}

func checkObject(t *testing.T, event string, o map[string]any) {
	t.Helper()
	name, _ := o["nova_object.name"].(string)
	data, _ := o["nova_object.data"].(map[string]any)
	want, ok := objects()[name]
	if !ok || len(o) != 4 || o["nova_object.namespace"] != "nova" || o["nova_object.version"] != want[0] {
		t.Errorf("%s: %s is no object of version %s: %v", event, name, want[0], slices.Sorted(maps.Keys(o)))
		return
	}
	fields := strings.Fields(want[1])
	slices.Sort(fields)
	if got := slices.Sorted(maps.Keys(data)); len(fields) > 0 && !slices.Equal(got, fields) {
		t.Errorf("%s: %s has the fields\n%v, want\n%v", event, name, got, fields)
	}
	for k, v := range data {
		if text, ok := v.(string); ok && timeField.MatchString(k) && !timeForm.MatchString(text) {
			t.Errorf("%s: %s.%s is %q, not a time", event, name, k, text)
		}
		list, ok := v.([]any)
		if !ok {
			list = []any{v}
		}
		for _, x := range list {
			if m, ok := x.(map[string]any); ok && m["nova_object.name"] != nil {
				checkObject(t, event+"."+k, m)
			}
		}
	}
}

// known reads the list of Nova's notifications: by event its type, payload and publisher.
func known(t *testing.T) map[string][3]string {
	t.Helper()
	raw, err := os.ReadFile("testdata/events.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][3]string{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 {
			out[f[0]] = [3]string{f[0], f[1], f[2]}
		}
	}
	if len(out) != 132 {
		t.Fatalf("%d events are listed", len(out))
	}
	return out
}

// without says why the notifications that are not there are not.
func without() map[string]string {
	const (
		volumes = "there is no volume service"
		shares  = "there are no shares"
	)
	out := map[string]string{
		"volume.usage": volumes,
	}
	for _, e := range []string{"volume_attach.start", "volume_attach.end", "volume_attach.error", "volume_detach.start", "volume_detach.end", "volume_swap.start", "volume_swap.end",
		"volume_swap.error"} {
		out["instance."+e] = volumes
	}
	for _, e := range []string{"share_attach.start", "share_attach.end", "share_attach.error", "share_detach.start", "share_detach.end", "share_detach.error"} {
		out["instance."+e] = shares
	}
	return out
}

// TestEveryNotificationIsThereOrExcused holds the tables against Nova's list.
func TestEveryNotificationIsThereOrExcused(t *testing.T) {
	all, excused := known(t), without()
	told := map[string]bool{}
	for _, e := range notify.Events() {
		told[e] = true
		if _, ok := all[e]; !ok {
			t.Errorf("%s is no notification of Nova", e)
		}
	}
	for e := range all {
		if told[e] == (excused[e] != "") {
			t.Errorf("%s: told %v, excuse %q", e, told[e], excused[e])
		}
	}
	for e := range excused {
		if _, ok := all[e]; !ok {
			t.Errorf("the excuse for %s is for nothing", e)
		}
	}
	for _, l := range notify.Lines() {
		if l.Payload() != all[l.Event][1] {
			t.Errorf("%s at %s %s sends %s, want %s", l.Event, l.Kind, l.Step, l.Payload(), all[l.Event][1])
		}
	}
}

// TestEveryOperationTells holds the table against the flows: each kind is in it, and each of its steps is there.
func TestEveryOperationTells(t *testing.T) {
	silent := map[string]string{compute.OpPassword: "Nova has no notification of a changed password"}
	steps := map[string]map[string]bool{"lock": {"": true}, "unlock": {"": true}} // complete at acceptance: no flow
	for _, f := range flow.All(flow.Config{}) {
		steps[f.Kind] = map[string]bool{"": true}
		for _, s := range f.Steps {
			steps[f.Kind][s.Name] = true
		}
	}
	told := map[string]bool{}
	for _, l := range notify.Lines() {
		told[l.Kind] = true
		if !steps[l.Kind][l.Step] {
			t.Errorf("%s: operation %s has no step %q", l.Event, l.Kind, l.Step)
		}
	}
	for kind := range steps {
		if told[kind] == (silent[kind] != "") {
			t.Errorf("operation %s: told %v, excuse %q", kind, told[kind], silent[kind])
		}
	}
}
