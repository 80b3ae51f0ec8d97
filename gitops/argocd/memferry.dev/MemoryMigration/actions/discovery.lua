local status = obj.status or {}
local over = {Succeeded = true, Failed = true, Aborted = true, SwitchedBack = true}
local phase = status.phase or "Pending"
local traffic = status.traffic or {}
local stalled, waits = false, status.approval ~= nil and status.approval.token ~= nil
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Stalled" and condition.status == "True" then
    stalled = true
  end
end
local suspended = obj.spec.suspend == true
local before = phase == "Pending" or phase == "ParallelSetup" or phase == "BulkTransfer" or phase == "Validation"
local switching = phase == "TrafficSwitch" and traffic.direction ~= "Back" and traffic.step ~= "Serving"

actions = {}
actions["suspend"] = {["disabled"] = over[phase] == true or suspended}
actions["resume"] = {["disabled"] = not suspended}
actions["approve"] = {["disabled"] = not waits}
actions["abort"] = {["disabled"] = not (before or switching)}
actions["switch-back"] = {["disabled"] = phase ~= "Monitoring" or status.plan == nil or status.plan.wayBack ~= true}
actions["retry"] = {["disabled"] = over[phase] == true or not stalled}
return actions
