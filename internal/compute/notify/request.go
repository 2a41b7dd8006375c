package notify

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/flow"
	"kilonova/internal/fault"
	"kilonova/internal/operation"
)

// request makes the RequestSpecPayload of an operation that chooses a host. What the image service knows of the image beyond its properties is not told: the
// transaction cannot ask for it.
func (o *occasion) request() (object, error) {
	s, r := o.server, o.turn.Run
	d := map[string]any{"instance_uuid": s.ID, "project_id": s.ProjectID, "user_id": s.UserID, "availability_zone": nil, "flavor": flavor(&s.Flavor, nil),
		"force_hosts": nil, "force_nodes": nil, "ignore_hosts": nil, "image": image(s), "instance_group": nil, "numa_topology": nil,
		"pci_requests":  made("InstancePCIRequestsPayload", map[string]any{"instance_uuid": s.ID, "requests": []object{}}),
		"num_instances": 1, "requested_destination": nil, "retry": nil, "scheduler_hints": hints(s.Hints), "security_groups": orNone(s.SecurityGroups)}
	if s.PinnedZone != nil {
		d["availability_zone"] = *s.PinnedZone
	}
	wanted(r, d)
	if tried := flow.Tried(r); len(tried) > 0 {
		d["ignore_hosts"] = tried
		d["retry"] = made("SchedulerRetriesPayload", map[string]any{"num_attempts": len(tried) + 1, "hosts": tried})
	}
	if s.GroupID != "" {
		g, err := o.n.cfg.Store.Group(o.ctx, o.tx, s.GroupID)
		if err != nil && !errors.Is(err, fault.NotFound) {
			return object{}, err
		}
		if err == nil {
			d["instance_group"] = group(g)
		}
	}
	return made("RequestSpecPayload", d), nil
}

// wanted puts in what the operation's input says of hosts and flavor.
func wanted(r *operation.Run, d map[string]any) {
	var in struct {
		Zone      *string        `json:"zone"`
		Host      string         `json:"host"`
		Node      string         `json:"node"`
		ForceHost string         `json:"force_host"`
		ForceNode string         `json:"force_node"`
		Force     bool           `json:"force"`
		Migrate   bool           `json:"migrate"`
		Flavor    compute.Flavor `json:"flavor"`
		ImageID   string         `json:"image_id"`
	}
	if r.Bind(&in) != nil {
		return
	}
	if in.Zone != nil {
		d["availability_zone"] = orNull(*in.Zone)
	}
	if in.Force {
		in.ForceHost, in.Host = in.Host, ""
	}
	d["force_hosts"], d["force_nodes"] = orNull(in.ForceHost), orNull(in.ForceNode)
	if in.Host != "" || in.Node != "" {
		d["requested_destination"] = made("DestinationPayload", map[string]any{"host": in.Host, "node": orNull(in.Node), "cell": nil, "aggregates": nil})
	}
	if r.Kind == compute.OpResize && !in.Migrate {
		d["flavor"] = flavor(&in.Flavor, nil)
	}
}

// image makes the ImageMetaPayload of what the server keeps of its image.
func image(s *compute.Server) object {
	props := map[string]any{}
	for k, v := range s.ImageProps {
		if !strings.HasPrefix(k, "hw_") && !strings.HasPrefix(k, "os_") && !strings.HasPrefix(k, "img_") {
			continue
		}
		props[k] = v
		if n, err := strconv.Atoi(v); err == nil {
			props[k] = n
		}
	}
	return made("ImageMetaPayload", map[string]any{"id": orNull(s.ImageID), "name": nil, "status": nil, "visibility": nil, "protected": nil, "checksum": nil, "owner": nil, "size": nil,
		"virtual_size": nil, "container_format": nil, "disk_format": nil, "created_at": nil, "updated_at": nil, "tags": nil, "direct_url": nil, "min_ram": nil, "min_disk": nil,
		"properties": made("ImageMetaPropsPayload", props)})
}

// hints makes lists of strings of the scheduler hints.
func hints(in map[string]any) map[string][]string {
	out := map[string][]string{}
	for k, v := range in {
		if l, ok := v.([]any); ok {
			for _, x := range l {
				out[k] = append(out[k], fmt.Sprint(x))
			}
			continue
		}
		out[k] = []string{fmt.Sprint(v)}
	}
	return out
}
