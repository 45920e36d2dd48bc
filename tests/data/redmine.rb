# Fills a private Redmine for stories: a user with a phone, a project, and the keys of the REST interface.
Setting.rest_api_enabled = '1'
admin = User.find_by_login('admin')
admin.update!(must_change_passwd: false)
phone = UserCustomField.create!(name: 'Mobile', field_format: 'string')
ruben = User.new(firstname: 'Ruben', lastname: 'Roth', mail: 'ruben@example.test')
ruben.login = 'ruben'
ruben.password = 'a-long-password'
ruben.custom_field_values = { phone.id.to_s => '+4915212345678' }
ruben.save!
project = Project.create!(name: 'Plant', identifier: 'plant', trackers: Tracker.all)
Member.create!(project: project, principal: ruben, roles: [Role.givable.first])
puts "key #{admin.api_key}", "user #{ruben.id}"
