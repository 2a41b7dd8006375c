package servers

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/compute/api/view"
	"kilonova/internal/compute/scheduler"
	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
	"kilonova/internal/id"
	"kilonova/internal/image"
)

// createImage makes a queued image and accepts the snapshot that fills it.
func (a api) createImage(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Create struct {
			Name     string            `json:"name"`
			Metadata map[string]string `json:"metadata"`
		} `json:"createImage"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("servers:create_image"))
	if err != nil {
		return nil, err
	}
	name := strings.TrimSpace(in.Create.Name)
	return a.snapshot(r, s, name, "snapshot", in.Create.Metadata, backend.Request{Op: compute.OpSnapshot, Action: "createImage", TaskState: compute.TaskSnapshotPending,
		Input: compute.SnapshotInput{Name: name}})
}

func (a api) createBackup(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Create struct {
			Name     string            `json:"name"`
			Type     string            `json:"backup_type"`
			Rotation backend.Int       `json:"rotation"`
			Metadata map[string]string `json:"metadata"`
		} `json:"createBackup"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-create-backup"))
	if err != nil {
		return nil, err
	}
	if s.ImageID == "" {
		return nil, fault.New(fault.Invalid, "Backup is not supported for volume-backed instances.")
	}
	meta := maps.Clone(in.Create.Metadata)
	if meta == nil {
		meta = map[string]string{}
	}
	meta["backup_type"] = in.Create.Type
	name := strings.TrimSpace(in.Create.Name)
	return a.snapshot(r, s, name, "backup", meta, backend.Request{Op: compute.OpBackup, Action: "createBackup", TaskState: compute.TaskBackup,
		Input: compute.SnapshotInput{Name: name, BackupType: in.Create.Type, Rotation: int(in.Create.Rotation)}})
}

// snapshot is what createImage and createBackup have in common.
func (a api) snapshot(r *httpapi.Request, s *compute.Server, name, kind string, meta map[string]string, q backend.Request) (*httpapi.Reply, error) {
	if err := a.Check(r, s, q.Op); err != nil {
		return nil, err
	}
	if backend.Minor(r) < 39 {
		if err := a.fitsMetadata(r, meta); err != nil {
			return nil, err
		}
	}
	img, err := a.queuedImage(r.Context(), r, s, name, kind, meta)
	if err != nil {
		return nil, err
	}
	input, _ := q.Input.(compute.SnapshotInput)
	input.ImageID = img.ID
	q.Input = input
	if err := a.Accept(r, s, q); err != nil {
		return nil, a.forget(r, img.ID, err)
	}
	if backend.Minor(r) >= 45 {
		return body(map[string]any{"image_id": img.ID})
	}
	return located(backend.Links(r).Bookmark + "/images/" + img.ID)
}

// queuedImage records the image that a snapshot will fill: it inherits what the server's own image says about how to run it.
func (a api) queuedImage(ctx context.Context, r *httpapi.Request, s *compute.Server, name, kind string, meta map[string]string) (*image.Image, error) {
	props := map[string]string{}
	for k, v := range s.ImageProps {
		if !strings.HasPrefix(k, "img_signature") && k != "backup_type" && k != "image_type" && k != "os_glance_failed_import" {
			props[k] = v
		}
	}
	maps.Copy(props, map[string]string{"image_type": kind, "user_id": s.UserID, "base_image_ref": s.ImageID, "owner_id": s.ProjectID, "owner_project_name": r.Caller.ProjectName,
		"owner_user_name": r.Caller.UserName, "image_location": "snapshot", "image_state": "available", "boot_roles": strings.Join(r.Caller.Roles, ",")})
	maps.Copy(props, meta)
	props["instance_uuid"] = s.ID // by which backups are found
	format, container := "qcow2", "bare"
	base, err := a.Images.Get(ctx, r.Caller, s.ImageID)
	if fault.IsAway(err) {
		return nil, err
	}
	if err == nil && base.DiskFormat != "" && base.DiskFormat != "ami" && base.DiskFormat != "iso" {
		format, container = base.DiskFormat, base.ContainerFormat
	}
	return a.Images.Create(ctx, r.Caller, image.Image{ID: id.UUID(), Name: name, Visibility: "private", Owner: s.ProjectID, DiskFormat: format, ContainerFormat: container,
		MinDisk: s.Flavor.RootGB, Properties: props})
}

// forget removes the image of an operation that was not accepted after all and gives the reason. When it may have been accepted the image stays: either the operation fills it,
// or it is found to be nobody's later.
func (a api) forget(r *httpapi.Request, img string, cause error) error {
	if db.IsUncertain(cause) {
		return cause
	}
	if err := a.Images.Delete(context.WithoutCancel(r.Context()), r.Caller, img); err != nil && fault.KindOf(err) != fault.NotFound {
		a.Log.Warn("queued image is left behind", "image", img, "request_id", r.RequestID, "error", err)
	}
	return cause
}

// shelve stops a server, keeps its disk as an image and, when the deployment says so, leaves its host.
func (a api) shelve(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "id", backend.Rule("os-shelve:shelve"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpShelve); err != nil {
		return nil, err
	}
	input := compute.ShelveInput{Offload: a.offloadsAtOnce(s)}
	if s.ImageID != "" {
		img, err := a.queuedImage(r.Context(), r, s, s.Name+"-shelved", "snapshot", nil)
		if err != nil {
			return nil, err
		}
		input.ImageID = img.ID
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.OpShelve, Action: "shelve", TaskState: compute.TaskShelving, Input: input}); err != nil {
		if input.ImageID != "" {
			err = a.forget(r, input.ImageID, err)
		}
		return nil, err
	}
	return empty()
}

func (a api) rescue(r *httpapi.Request) (*httpapi.Reply, error) {
	var in struct {
		Rescue *struct {
			Pass  string `json:"adminPass"`
			Image string `json:"rescue_image_ref"`
		} `json:"rescue"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("os-rescue"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpRescue); err != nil {
		return nil, err
	}
	input := compute.RescueInput{ImageID: s.ImageID, ImageProps: s.ImageProps}
	if in.Rescue != nil {
		input.AdminPass = in.Rescue.Pass
		if in.Rescue.Image != "" {
			input.ImageID = in.Rescue.Image
		}
	}
	switch {
	case s.ImageID == "" && backend.Minor(r) < 87:
		return nil, fault.New(fault.Invalid, "Instance %s cannot be rescued: Cannot rescue a volume-backed instance", s.ID)
	case input.ImageID == "":
		return nil, fault.New(fault.Invalid, "Instance %s cannot be rescued: name the rescue image.", s.ID)
	}
	img, err := a.Images.Get(r.Context(), r.Caller, input.ImageID)
	if err != nil {
		return nil, asInvalid(err, "Image %s could not be found.", input.ImageID)
	}
	if img.Status != image.Active {
		return nil, fault.New(fault.Invalid, "Image %s is not active.", img.ID)
	}
	input.ImageProps = img.Properties
	if input.AdminPass == "" {
		input.AdminPass = newPassword()
	}
	if err := a.Accept(r, s, backend.Request{Op: compute.OpRescue, Action: "rescue", TaskState: compute.TaskRescuing, Input: input}); err != nil {
		return nil, err
	}
	if a.NoPassword {
		return body(map[string]any{})
	}
	return body(map[string]any{"adminPass": input.AdminPass})
}

// rebuildBody is the body of the action rebuild.
type rebuildBody struct {
	Rebuild struct {
		Name        *string                  `json:"name"`
		ImageRef    string                   `json:"imageRef"`
		AdminPass   string                   `json:"adminPass"`
		Metadata    map[string]string        `json:"metadata"`
		Preserve    backend.Bool             `json:"preserve_ephemeral"`
		DiskConfig  *string                  `json:"OS-DCF:diskConfig"`
		AccessIPv4  *string                  `json:"accessIPv4"`
		AccessIPv6  *string                  `json:"accessIPv6"`
		Personality []personality            `json:"personality"`
		Description backend.Optional[string] `json:"description"`
		KeyName     backend.Optional[string] `json:"key_name"`
		UserData    backend.Optional[string] `json:"user_data"`
		Certs       *[]string                `json:"trusted_image_certificates"`
		Hostname    *string                  `json:"hostname"`
	} `json:"rebuild"`
}

func (a api) rebuild(r *httpapi.Request) (*httpapi.Reply, error) {
	var in rebuildBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	s, err := a.Server(r, "id", backend.Rule("servers:rebuild"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpRebuild); err != nil {
		return nil, err
	}
	v := &in.Rebuild
	if v.Certs != nil {
		if err := r.Authorize(backend.Rule("servers:rebuild:trusted_certs"), backend.Target(s.ProjectID, s.UserID)); err != nil {
			return nil, err
		}
	}
	img, err := a.bootable(r.Context(), r, v.ImageRef)
	if err != nil {
		return nil, err
	}
	if err := a.fits(r, img, &s.Flavor); err != nil {
		return nil, err
	}
	if err := a.sameTopology(s, img.Properties); err != nil {
		return nil, err
	}
	if v.DiskConfig != nil {
		if err := mayGrow(*v.DiskConfig, img.ID, img.Properties); err != nil {
			return nil, err
		}
	}
	if err := a.fitsMetadata(r, v.Metadata); err != nil {
		return nil, err
	}
	files, err := a.injected(r.Context(), r, v.Personality)
	if err != nil {
		return nil, err
	}
	key, err := a.rebuildKey(r, s, v.KeyName)
	if err != nil {
		return nil, err
	}
	pass := v.AdminPass
	if pass == "" {
		pass = newPassword()
	}
	input := compute.RebuildInput{ImageID: img.ID, ImageProps: img.Properties, AdminPass: pass, PreserveEphemeral: bool(v.Preserve), Files: files, NewImage: img.ID != s.ImageID}
	err = a.Accept(r, s, backend.Request{Op: compute.OpRebuild, Action: "rebuild", TaskState: compute.TaskRebuilding, Input: input, Change: func(now *compute.Server) error {
		in.apply(now, key)
		now.ConfigDrive = now.ConfigDrive || img.Properties[configDrive] == mandatory
		s = now
		return nil
	}})
	if err != nil {
		return nil, err
	}
	answer := *s
	answer.TaskState, answer.ImageID, answer.ImageProps = compute.TaskRebuilding, img.ID, img.Properties
	if a.NoPassword {
		pass = ""
	}
	return a.located(r, &answer, pass)
}

func (a api) located(r *httpapi.Request, s *compute.Server, pass string) (*httpapi.Reply, error) {
	reply, err := a.document(r, view.Rebuild, s, pass)
	if err != nil {
		return nil, err
	}
	return reply.With("Location", fmt.Sprintf("%s/servers/%s", backend.Links(r).Self, s.ID)), nil
}

// rebuildKey finds the key pair that a rebuild names: nil leaves it, an empty one removes it.
func (a api) rebuildKey(r *httpapi.Request, s *compute.Server, name backend.Optional[string]) (*compute.KeyPair, error) {
	if !name.Given {
		return nil, nil
	}
	if name.Value == nil {
		return &compute.KeyPair{}, nil
	}
	k, err := a.Store.KeyPair(r.Context(), a.DB(), s.UserID, *name.Value)
	return k, asInvalid(err, "Invalid key_name provided.")
}

// sameTopology refuses an image that asks for other NUMA nodes, pinned CPUs or pages than the server has on its host.
func (a api) sameTopology(s *compute.Server, props map[string]string) error {
	if err := a.Exact(&s.Flavor, props); err != nil {
		return err
	}
	if !scheduler.SameTopology(&s.Flavor, s.ImageProps, props) {
		return fault.New(fault.Invalid, "An instance's NUMA topology cannot be changed as part of a rebuild. The image provided is invalid for this instance.")
	}
	return nil
}

// apply writes what a rebuild changes of the record at once.
func (in *rebuildBody) apply(s *compute.Server, key *compute.KeyPair) {
	v := &in.Rebuild
	for _, f := range []struct {
		from *string
		to   *string
	}{{v.DiskConfig, &s.DiskConfig}, {v.AccessIPv4, &s.AccessIPv4}, {v.AccessIPv6, &s.AccessIPv6}, {v.Hostname, &s.Hostname}, {v.Name, &s.Name}} {
		if f.from != nil {
			*f.to = strings.TrimSpace(*f.from)
		}
	}
	s.AccessIPv4, s.AccessIPv6 = canonical(s.AccessIPv4), canonical(s.AccessIPv6)
	if v.Metadata != nil {
		s.Metadata = v.Metadata
	}
	if v.Description.Given {
		s.Description = v.Description.Value
	}
	if v.UserData.Given {
		s.UserData = ""
		if v.UserData.Value != nil {
			s.UserData = *v.UserData.Value
		}
	}
	if v.Certs != nil {
		s.TrustedCerts = *v.Certs
	}
	if key != nil {
		s.KeyName, s.KeyType, s.PublicKey = key.Name, key.Type, key.PublicKey
	}
}
