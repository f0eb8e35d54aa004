# frozen_string_literal: true

# What a template sees: BOSH's binding (`p`, `if_p`, `link`, `spec`, …).
#
# The names of modules and classes are part of the contract: they stand in the messages of errors, and templates rescue
# by them. Properties are plain hashes; `spec` and `properties` are trees of OpenStruct that are only built when a
# template asks for them, because building them costs more than everything else here.

module Bosh
  module Common
    module Template
      class UnknownProperty < StandardError
        attr_reader :name

        def initialize(names)
          @name = names
          super("Can't find property '#{names.inspect}'")
        end
      end

      class UnknownLink < StandardError
        attr_reader :name

        def initialize(name)
          @name = name
          super("Can't find link '#{name}'")
        end
      end

      # Dotted lookup, and the two readers on top of it that jobs, links and link instances share.
      module PropertyHelper
        def lookup_property(collection, dotted)
          dotted.split('.').inject(collection) do |inner, key|
            return nil if inner.nil?
            inner[key]
          end
        end

        private

        def first_property(properties, args)
          names = Array(args[0])
          names.each do |name|
            value = lookup_property(properties, name)
            return value unless value.nil?
          end
          # Only a second argument is a default; a third one makes it none.
          raise UnknownProperty, names unless args.length == 2
          args[1]
        end

        # Returns the values, or nil if one is missing.
        def all_properties(properties, names)
          names.map do |name|
            value = lookup_property(properties, name)
            return nil if value.nil?
            value
          end
        end
      end

      class EvaluationLinkInstance
        include PropertyHelper

        attr_reader :name, :index, :id, :az, :address, :properties, :bootstrap

        def initialize(instance)
          @name, @index, @id, @az, @address, @properties, @bootstrap =
            instance.values_at('name', 'index', 'id', 'az', 'address', 'properties', 'bootstrap')
        end

        def p(*args)
          first_property(@properties, args)
        end

        def if_p(*names)
          values = all_properties(@properties, names) or return EvaluationContext::ActiveElseBlock.new(self)
          yield(*values)
          EvaluationContext::InactiveElseBlock.new
        end
      end

      class EvaluationLink
        include PropertyHelper

        attr_reader :instances, :properties

        def initialize(content, dns)
          @content = content
          @dns = dns
          @instances = content['instances'].map { |instance| EvaluationLinkInstance.new(instance) }
          @properties = content['properties']
        end

        def p(*args)
          first_property(@properties, args)
        end

        def if_p(*names)
          values = all_properties(@properties, names) or return EvaluationContext::ActiveElseBlock.new(self)
          yield(*values)
          EvaluationContext::InactiveElseBlock.new
        end

        def address(criteria = {})
          return @content['address'] if @content.key?('address')
          @dns.name_of(@content, criteria)
        end
      end

      class EvaluationContext
        include PropertyHelper

        attr_reader :name, :index, :raw_properties

        def initialize(spec, dns)
          @name = spec['job']['name'] if spec['job'].is_a?(Hash)
          @index = spec['index']
          @raw_properties = spec['properties'] || {}
          @links = spec['links'] || {}
          @raw_spec = spec
          @dns = dns
        end

        def properties
          @properties ||= openstruct(@raw_properties, OpenStruct)
        end

        def spec
          @spec ||= openstruct(@raw_spec, BackCompatOpenStruct)
        end

        def p(*args)
          first_property(@raw_properties, args)
        end

        def if_p(*names)
          values = all_properties(@raw_properties, names) or return ActiveElseBlock.new(self)
          yield(*values)
          InactiveElseBlock.new
        end

        def link(name)
          content = usable_link(name) or raise UnknownLink, name
          EvaluationLink.new(content, @dns)
        end

        def if_link(name)
          content = usable_link(name) or return ActiveElseBlock.new(self)
          yield EvaluationLink.new(content, @dns)
          InactiveElseBlock.new
        end

        def get_binding
          binding
        end

        # Returns whether templates have changed what they see, compared with the spec nobody has touched. Links do not
        # count: BOSH never looked at them, and releases came to rely on it.
        def touched?(pristine)
          job = pristine['job']
          @name != (job['name'] if job.is_a?(Hash)) || @index != pristine['index'] ||
            @raw_properties != (pristine['properties'] || {}) ||
            (@properties && !mirrors?(@properties, @raw_properties)) || (@spec && !mirrors?(@spec, pristine))
        end

        private

        def usable_link(name)
          content = lookup_property(@links, name)
          content if content&.key?('instances')
        end

        def openstruct(object, struct)
          case object
          when Hash then struct.new(object.transform_values { |value| openstruct(value, struct) })
          when Array then object.map { |item| openstruct(item, struct) }
          else object
          end
        end

        # Returns whether a tree of OpenStruct still says what the hash says that it was made from.
        def mirrors?(built, raw)
          case raw
          when Hash
            return false unless built.is_a?(OpenStruct)
            table = built.marshal_dump
            table.size == raw.size && raw.all? { |key, value| table.key?(key.to_sym) && mirrors?(table[key.to_sym], value) }
          when Array
            built.is_a?(Array) && built.size == raw.size && built.zip(raw).all? { |item, value| mirrors?(item, value) }
          else built == raw
          end
        end

        # Templates list networks with `spec.networks.methods(false)`. A spec is large and templates read little of it:
        # its readers are `method_missing`, except where a method of that name is there already.
        class BackCompatOpenStruct < OpenStruct
          if private_method_defined?(:new_ostruct_member!) || method_defined?(:new_ostruct_member!)
            private def new_ostruct_member!(name)
              taken = self.class.method_defined?(name) || self.class.private_method_defined?(name)
              super if taken
            end
          end

          def respond_to_missing?(name, private = false)
            marshal_dump.key?(name.to_s.chomp('=').to_sym) || super
          end

          def methods(regular = true)
            regular ? super : marshal_dump.keys
          end
        end

        # What follows a condition that did not hold.
        class ActiveElseBlock
          def initialize(context)
            @context = context
          end

          def else
            yield
          end

          def else_if_p(*names, &block)
            @context.if_p(*names, &block)
          end

          def else_if_link(name, &block)
            @context.if_link(name, &block)
          end
        end

        # What follows a condition that held: nothing runs any more.
        class InactiveElseBlock
          def else; end

          def else_if_p(*)
            InactiveElseBlock.new
          end

          def else_if_link(_name)
            InactiveElseBlock.new
          end
        end
      end
    end
  end

  # Templates of old releases name the classes this way.
  Template = Common::Template
end

# The part of ActiveSupport that the director always had loaded.
class Object
  def blank?
    respond_to?(:empty?) ? !!empty? : !self
  end

  def present?
    !blank?
  end

  def presence
    self if present?
  end
end

class String
  def blank?
    match?(/\A[[:space:]]*\z/)
  end
end

class Numeric
  def blank?
    false
  end
end

class Time
  def blank?
    false
  end
end

module Directorate
  # Names that BOSH DNS understands.
  class Dns
    STATUS = { 'healthy' => 's3', 'unhealthy' => 's1', 'all' => 's4' }.freeze
    INITIAL_CHECK = { 'synchronous' => 'y1', 'asynchronous' => 'y0' }.freeze

    def initialize(tables)
      @azs = tables['azs']
      @networks = tables['networks']
      @groups = tables['groups'].to_h { |g| [g.values_at('type', 'name', 'deployment'), g['id']] }
    end

    # Returns the name of those instances behind a link that meet the criteria.
    def name_of(link, criteria)
      short = link['use_short_dns_addresses']
      tokens = [STATUS.fetch(criteria[:status], 's0'), INITIAL_CHECK[criteria[:initial_health_check]]].compact
      tokens += Array(criteria[:azs]).map { |az| "a#{@azs.fetch(az) { raise "Unknown AZ: '#{az}'" }}" }
      kind, group = if link['use_link_dns_names']
                      ['link', link['group_name']]
                    else
                      ['instance-group', link['instance_group']]
                    end
      deployment, network, domain = link.values_at('deployment_name', 'default_network', 'domain')
      return "q-#{tokens.sort.join}.#{[group, network, deployment].map { |l| label(l) }.join('.')}.#{domain}" unless short
      tokens << "n#{@networks.fetch(network) { raise "Unknown Network: '#{network}'" }}"
      id = @groups.fetch([kind, group, deployment]) { raise "Unknown Group: '#{group}'" }
      "q-#{tokens.sort.join}.q-g#{id}.#{domain}"
    end

    private

    def label(text)
      text.to_s.downcase.tr('_', '-').gsub(/[^a-z0-9-]/, '')
    end
  end
end
