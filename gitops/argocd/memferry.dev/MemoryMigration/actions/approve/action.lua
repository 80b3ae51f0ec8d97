-- The token says what was looked at: an approval of a plan approves no other.
local approval = obj.status.approval
if approval["for"] == "Decommission" then
  obj.spec.decommission = obj.spec.decommission or {}
  obj.spec.decommission.confirm = approval.token
else
  obj.spec.cutover = obj.spec.cutover or {}
  obj.spec.cutover.approve = approval.token
end
return obj
