package cloud

import (
	"fmt"
	"time"

	"kilonova/internal/clock"
	"kilonova/internal/fault"
	"kilonova/internal/httpapi"
)

const auditLayout = "2006-01-02 15:04:05"

// The audit log tells for each host how many servers the audit of a period has told of. The audit goes through all servers of the cloud, so the hosts are done
// together; without it (it is switched off, or was at that time) no host is.

func (a api) listAudit(r *httpapi.Request) (*httpapi.Reply, error) {
	return a.audit(r, "instance_usage_audit_logs", clock.Now())
}

func (a api) showAudit(r *httpapi.Request) (*httpapi.Reply, error) {
	before, err := time.Parse(auditLayout, r.Path("id"))
	if err != nil {
		if before, err = time.Parse(auditLayout+".999999", r.Path("id")); err != nil {
			return nil, fault.New(fault.Invalid, "Invalid timestamp for date %s", r.Path("id"))
		}
	}
	return a.audit(r, "instance_usage_audit_log", before)
}

// audit is the report of the last whole period before a time.
func (a api) audit(r *httpapi.Request, key string, before time.Time) (*httpapi.Reply, error) {
	begin, end := a.AuditPeriod.Last(before)
	hosts, err := a.Store.Hosts(r.Context(), a.DB())
	if err != nil {
		return nil, err
	}
	audits, err := a.Store.Audits(r.Context(), a.DB(), end)
	if err != nil {
		return nil, err
	}
	log, missing := document{}, []string{}
	var done, servers int64
	for _, x := range audits {
		state := "RUNNING"
		message := fmt.Sprintf("Instance usage audit is running for host %s, %d instances so far.", x.Host, x.Servers)
		if x.Done {
			state, message = "DONE", fmt.Sprintf("Instance usage audit ran for host %s, %d instances in %.2f seconds.", x.Host, x.Servers, x.Took.Seconds())
			done++
		}
		servers += x.Servers
		log[x.Host] = document{"errors": 0, "instances": x.Servers, "message": message, "state": state}
	}
	for i := range hosts {
		if _, ok := log[hosts[i].Name]; !ok {
			missing = append(missing, hosts[i].Name)
		}
	}
	total := int64(len(missing) + len(audits))
	status := fmt.Sprintf("%d of %d hosts done. 0 errors.", done, total)
	if done == total && total > 0 {
		status = "ALL hosts done. 0 errors."
	}
	return reply(key, document{"period_beginning": begin.Format(auditLayout), "period_ending": end.Format(auditLayout), "num_hosts": total, "num_hosts_done": done,
		"num_hosts_running": int64(len(audits)) - done, "num_hosts_not_run": len(missing), "hosts_not_run": missing, "total_instances": servers, "total_errors": 0,
		"overall_status": status, "log": log}), nil
}
