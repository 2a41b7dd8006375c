package subresource

import (
	"kilonova/internal/compute"
	"kilonova/internal/compute/api/backend"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

func volumeView(s *compute.Server, d *compute.BlockDevice, minor int) map[string]any {
	v := map[string]any{"id": d.VolumeID, "volumeId": d.VolumeID, "serverId": s.ID, "device": d.Device}
	if minor >= 70 {
		v["tag"] = nil
		if d.Tag != "" {
			v["tag"] = d.Tag
		}
	}
	if minor >= 79 {
		v["delete_on_termination"] = d.DeleteOnTermination
	}
	if minor >= 89 {
		delete(v, "id")
		v["attachment_id"], v["bdm_uuid"] = d.AttachmentID, d.ID
	}
	return v
}

func (a api) listVolumes(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-volumes-attachments:index"))
	if err != nil {
		return nil, err
	}
	list := []map[string]any{}
	for i := range s.BlockDevices {
		if d := &s.BlockDevices[i]; d.VolumeID != "" {
			list = append(list, volumeView(s, d, backend.Minor(r)))
		}
	}
	if list, err = backend.Offset(a.Backend, r.Query(), list); err != nil {
		return nil, err
	}
	return body(map[string]any{"volumeAttachments": list})
}

// attached finds the attachment of a volume.
func attached(s *compute.Server, volume string) (*compute.BlockDevice, error) {
	for i := range s.BlockDevices {
		if s.BlockDevices[i].VolumeID == volume && volume != "" {
			return &s.BlockDevices[i], nil
		}
	}
	return nil, fault.New(fault.NotFound, "Instance %s is not attached to volume %s", s.ID, volume)
}

func (a api) showVolume(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-volumes-attachments:show"))
	if err != nil {
		return nil, err
	}
	d, err := attached(s, r.Path("id"))
	if err != nil {
		return nil, err
	}
	return body(map[string]any{"volumeAttachment": volumeView(s, d, backend.Minor(r))})
}

func (a api) attachVolume(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-volumes-attachments:create"))
	if err != nil {
		return nil, err
	}
	op := compute.OpAttachVolume
	if backend.Minor(r) >= 20 {
		op = compute.DoAttachShelved
	}
	if err := a.Check(r, s, op); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.Invalid, backend.NoVolumes)
}

func (a api) updateVolume(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-volumes-attachments:update"))
	if err != nil {
		return nil, err
	}
	if _, err := attached(s, r.Path("id")); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.Invalid, backend.NoVolumes)
}

func (a api) detachVolume(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-volumes-attachments:delete"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.OpDetachVolume); err != nil {
		return nil, err
	}
	if _, err := attached(s, r.Path("id")); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.Invalid, backend.NoVolumes)
}

const noShares = "This cloud has no shared file system service configured: shares cannot be used."

func (a api) listShares(r *httpapi.Request) (*httpapi.Reply, error) {
	if _, err := a.Server(r, "server_id", backend.Rule("os-server-shares:index")); err != nil {
		return nil, err
	}
	return body(map[string]any{"shares": []any{}})
}

func (a api) attachShare(r *httpapi.Request) (*httpapi.Reply, error) {
	s, err := a.Server(r, "server_id", backend.Rule("os-server-shares:create"))
	if err != nil {
		return nil, err
	}
	if err := a.Check(r, s, compute.DoAttachShare); err != nil {
		return nil, err
	}
	return nil, fault.New(fault.Invalid, noShares)
}

// noShare answers show and delete of a share: no server has one.
func (a api) noShare(r *httpapi.Request) (*httpapi.Reply, error) {
	rule := map[string]string{"GET": "show", "DELETE": "delete"}[r.HTTP.Method]
	s, err := a.Server(r, "server_id", backend.Rule("os-server-shares:"+rule))
	if err != nil {
		return nil, err
	}
	return nil, fault.New(fault.NotFound, "The share %s of instance %s could not be found.", r.Path("id"), s.ID)
}
